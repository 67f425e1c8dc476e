package alert

import (
	"context"
	"time"
)

// Nodes are the relays that share hooks: each looks for conditions by itself, and one of them tells a hook. A key names
// the hook, the event and the subject.
type Nodes interface {
	// BeginAlert notes that a condition holds for this node, since a time. It reports whether this node is to tell of
	// it, as no other one has done so in the last day, and since when it holds for any node.
	BeginAlert(ctx context.Context, key string, since time.Time) (tell bool, first time.Time, err error)
	// EndAlert notes that a condition does not hold any more for this node, and reports whether it does for no other.
	EndAlert(ctx context.Context, key string) (tell bool, err error)
}

// askNodes bounds the question whether another node tells.
const askNodes = 10 * time.Second

// tell sends an alert, unless another node does. If the nodes cannot be asked, an alert comes twice rather than never.
func (a *Alerter) tell(ctx context.Context, h *hook, settings Hook, n *notice) result {
	if a.o.Nodes == nil {
		return a.o.post(ctx, settings, n.doc)
	}
	asking, cancel := context.WithTimeout(ctx, askNodes)
	defer cancel()
	key := idOf(h.id + "\x00" + string(n.of.event) + "\x00" + n.of.subject)
	var (
		tell  bool
		first time.Time
		err   error
	)
	if n.doc.Resolved {
		tell, err = a.o.Nodes.EndAlert(asking, key)
	} else {
		tell, first, err = a.o.Nodes.BeginAlert(asking, key, n.doc.Since)
	}
	if err != nil {
		a.logger(settings, n).Warn("other nodes may tell the same alert, they cannot be asked", "err", err)
		return a.o.post(ctx, settings, n.doc)
	}
	if !tell {
		return result{elsewhere: true, since: first}
	}
	return a.o.post(ctx, settings, n.doc)
}
