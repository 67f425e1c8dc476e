package doctor

import (
	"context"
	"fmt"
	"time"

	"postern/relay/finding"
	"postern/relay/queue"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// queueExam looks at the queue.
type queueExam struct{ *exam }

// heldLong is from when held mail counts as forgotten.
const heldLong = 2 * 24 * time.Hour

// maxLooked bounds how many messages the oldest that is not held is looked for among.
const maxLooked = 1000

// queue looks at the age of what waits, and at what is held.
func (x queueExam) queue(ctx context.Context) (list []finding.Finding) {
	s, err := x.openStore(ctx)
	if err != nil || s == nil {
		return nil // store says so
	}
	defer s.Close()
	stats, err := s.Stats(ctx)
	if err != nil {
		return nil
	}
	list = append(list, x.oldest(ctx, s)...)
	list = append(list, x.held(ctx, s, stats.Held)...)
	if len(list) == 0 {
		list = append(list, fine(codeQueueOK, "queue", "%s, none waits too long.",
			count(stats.Messages-stats.Held, "message")))
	}
	return list
}

// oldest says that mail waits too long.
func (x queueExam) oldest(ctx context.Context, s *relaystore.Store) []finding.Finding {
	waiting, err := s.List(ctx, queue.Filter{Limit: maxLooked}) // in the order in which they came
	if err != nil {
		return []finding.Finding{skipped("queue", "The queue cannot be read: "+sentence(said(err.Error())),
			"Run postern doctor again.")}
	}
	for _, m := range waiting {
		if m.Held {
			continue
		}
		age, left := x.now.Sub(m.Received), m.Expires.Sub(x.now)
		late := x.c.Delivery.WarnAfter.Std()
		if late <= 0 {
			late = 4 * time.Hour
		}
		if age < late {
			return nil
		}
		w, then := finding.Fault, fmt.Sprintf("It is given up and reported to its sender in %s.", status.Span(left))
		if age > m.Expires.Sub(m.Received)/2 || left < 12*time.Hour {
			w = finding.Danger
		}
		if left <= 0 {
			then = "Its time is over: it is given up at the next attempt, and reported to its sender."
		}
		why := "Nothing was tried yet."
		if m.LastReply.Code != 0 {
			why = "The last answer was: " + said(m.LastReply.String())
		}
		return []finding.Finding{found(codeQueueOld, w, "queue",
			fmt.Sprintf("Mail waits for %s already (message %s). %s",
				status.Span(age), m.ID, sentence(why)), then,
			"postern queue show "+m.ID+"\nWhen the cause is mended: postern queue retry "+m.ID+"\nAll that waits: "+
				"postern queue list")}
	}
	return nil
}

// held says that mail that only a person can release was forgotten.
func (x queueExam) held(ctx context.Context, s *relaystore.Store, n int64) []finding.Finding {
	if n == 0 {
		return nil
	}
	first, err := s.List(ctx, queue.Filter{Held: true, Limit: 1})
	if err != nil || len(first) == 0 {
		return nil
	}
	m := first[0]
	age := x.now.Sub(m.Received)
	if age < heldLong {
		return []finding.Finding{found(codeHeld, finding.Advice, "queue", count(n, "held message")+" in the queue.",
			"They leave only when a person releases them.",
			"postern queue list --held\nThen: postern queue release ID, or "+
				"postern queue delete ID")}
	}
	return []finding.Finding{found(codeHeldLong, finding.Fault, "queue", fmt.Sprintf("%s in the queue; the oldest "+
		"came %s ago from %s: %s", count(n, "held message"), status.Span(age), said(m.Login),
		sentence(said(m.HoldReason))),
		"They leave only when a person releases them. Their senders may think that they have arrived.",
		"postern queue list --held\nThen: postern queue release ID, or postern queue delete ID")}
}
