package outbound

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/upstream"
)

// attempt is one attempt. It sends to one upstream after the other until every pending recipient has a
// result that no further upstream of its route can better.
type attempt struct {
	d          *Dispatcher
	routes     *Routes
	slot       upstream.Slot
	upstream   *Upstream
	prefetched bool // instead of the slot

	message *queue.Message
	lease   *queue.Lease
	content mail.Content
	used    []upstream.Slot // slots that took mail: kept until that is on record
	taken   func([]mail.Result)
	told    []mail.Result // what taken was told, or would have been
	prefix  []byte        // signed while waiting for the slot at upstream; nil: not
}

// Attempt implements queue.Slot. It returns one result for each pending recipient. A panic in it, a
// fault of ours that one message brings out, defers what is left of that message instead of ending the service for all.
func (a *attempt) Attempt(
	ctx context.Context, m *queue.Message, c mail.Content, l *queue.Lease, taken func([]mail.Result),
) (results []mail.Result) {
	a.message, a.content, a.lease, a.taken = m, c, l, taken
	defer func() {
		if p := recover(); p != nil {
			a.d.Logger.Error("an attempt failed by a fault of ours", "id", m.ID, "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			results = mergeResults(mergeResults(unattempted(m), results), a.told)
		}
	}()
	groups := a.routes.groups(m)
	if m.AllOrNone && len(groups) > 1 { // the routes have changed since somebody looked
		return unattempted(m)
	}
	for i, group := range groups {
		results = append(results, a.deliver(ctx, group)...)
		if i < len(groups)-1 {
			a.tell(results)
		}
	}
	return results
}

// tell reports the recipients for whom the message was taken while the attempt goes on.
func (a *attempt) tell(results []mail.Result) {
	results = slices.DeleteFunc(slices.Clone(results), func(r mail.Result) bool { return r.Class != mail.Delivered })
	if len(results) == 0 {
		return
	}
	a.told = mergeResults(a.told, results)
	if a.taken != nil {
		a.taken(results)
	}
}

// deliver tries the upstreams of one route in order. The next one is tried only for recipients that an
// upstream could not take for reasons of its own; never after a final dot without a reply.
func (a *attempt) deliver(ctx context.Context, g group) []mail.Result {
	var results []mail.Result
	waiting, wait := g.pending, time.Time{}
	for _, up := range g.route {
		slot, until := a.take(ctx, up)
		if slot == nil {
			wait = until
			continue
		}
		sent := a.sendAs(ctx, slot, up, waiting)
		results = mergeResults(results, passedOver(results, sent))
		if waiting = failOver(sent); len(waiting) == 0 || a.message.AllOrNone && len(waiting) < len(g.pending) {
			break
		}
		a.tell(results)
	}
	if results == nil {
		return notNow(g.pending, g.route[len(g.route)-1], wait)
	}
	return results
}

// take uses the slot that was reserved for the attempt where it fits, waits for the one that it was
// promised, and asks for one elsewhere.
func (a *attempt) take(ctx context.Context, up *Upstream) (upstream.Slot, time.Time) {
	if a.slot != nil && a.upstream == up {
		slot := a.slot
		a.slot = nil
		return slot, time.Time{}
	}
	if a.prefetched && a.upstream == up {
		defer a.leavePrefetch()
		a.signAhead(ctx, up)
		return up.prefetch.await(ctx)
	}
	return up.Reserve(time.Now(), up.identityFor(a.message))
}

// signAhead signs before the slot is there, so that the slot waits for nothing of ours. An error here occurs again, and
// is reported, when the message is sent.
func (a *attempt) signAhead(ctx context.Context, up *Upstream) {
	tx := upstream.Transaction{Content: a.content}
	if err := a.routes.prepare(&tx, up, a.message); err != nil || tx.Prefix == nil {
		return
	}
	if prefix, err := tx.Prefix(ctx); err == nil {
		a.prefix = prefix
	}
}

// sendAs sends as the message's own identity. If that is its sender and the provider rejects the login, the sender may
// have no mailbox: then the username sends the message, and if that works, the sender's further mail too.
func (a *attempt) sendAs(ctx context.Context, slot upstream.Slot, up *Upstream, pending []int) []mail.Result {
	sent := a.send(ctx, slot, up, pending)
	own := up.ownIdentity(a.message)
	switch {
	case own == "" || len(sent) == 0:
		return sent
	case sent[0].Identity == up.Config.Username:
		a.learn(up, own, sent)
		return sent
	case !loginRefused(sent):
		return sent
	}
	slot, until := up.Reserve(time.Now(), "")
	if slot == nil {
		if until.IsZero() { // it is only busy: the sender's mail waits there from now on
			up.withoutMailbox.add(own, time.Now())
			a.d.Changed()
		}
		return sent
	}
	instead := a.send(ctx, slot, up, pending)
	a.learn(up, own, instead)
	if loginRefused(instead) { // nobody is let in: what was said of the sender holds
		return sent
	}
	return instead
}

// send uses the slot and gives it back, unless a message was taken there: then Release does, later.
func (a *attempt) send(ctx context.Context, slot upstream.Slot, up *Upstream, pending []int) []mail.Result {
	a.used = append(a.used, slot)
	results := a.transact(ctx, slot, up, pending)
	if !slices.ContainsFunc(results, func(r mail.Result) bool { return r.Class == mail.Delivered || r.Uncertain }) {
		a.used = a.used[:len(a.used)-1]
		slot.Release()
	}
	return results
}

// transact makes one transaction and adds what is known of the upstream to its results.
func (a *attempt) transact(ctx context.Context, slot upstream.Slot, up *Upstream, pending []int) []mail.Result {
	tx := a.transaction(up, pending)
	if err := a.routes.prepare(&tx, up, a.message); err != nil {
		return unprepared(pending, up.Config.Name, err)
	}
	if a.prefix != nil && up == a.upstream {
		tx.Prefix = func(context.Context) ([]byte, error) { return a.prefix, nil }
	}
	results := slot.Send(ctx, tx)
	a.comment(func() {
		if tx.From.IsNull() {
			up.learnNull(results, time.Now())
		}
		up.tell(results, a.message)
	})
	for i := range results {
		results[i].Recipient = pending[results[i].Recipient]
		if up.Config.InsecureSkipVerify {
			results[i].Note = strings.TrimPrefix(results[i].Note+"; "+noteUnverified, "; ")
		}
		a.d.results.WithLabelValues(up.Config.Name, results[i].Class.String()).Inc()
	}
	return results
}

func (a *attempt) transaction(up *Upstream, pending []int) upstream.Transaction {
	m := a.message
	tx := upstream.Transaction{
		ID:         m.ID,
		From:       up.reversePath(m, a.routes.bounceFrom, time.Now()),
		Recipients: make([]mail.Recipient, len(pending)),
		Envelope:   make([]mail.Address, len(m.Recipients)),
		Content:    a.content,
		Ret:        m.Envelope.Ret,
		EnvID:      m.Envelope.EnvID,
		EightBit:   m.EightBit,
		Received:   m.Received,
		Left:       a.lease.Left,
		AllOrNone:  m.AllOrNone,
	}
	for i := range m.Recipients {
		tx.Envelope[i] = m.Recipients[i].To
	}
	for i, n := range pending {
		tx.Recipients[i] = m.Recipients[n].Recipient
		tx.Doubts = max(tx.Doubts, m.Recipients[n].Doubts)
	}
	tx.Last = tx.Doubts >= queue.MaxDoubts-1
	tx.Taken = func(taken []mail.Result) {
		for i := range taken {
			taken[i].Recipient = pending[taken[i].Recipient]
		}
		a.tell(taken)
	}
	if !tx.From.IsNull() { // else learnNull looks
		tx.Review = func(results []mail.Result) (doubt upstream.Doubt) {
			a.comment(func() { doubt = a.review(up, pending, results) })
			return doubt
		}
	}
	return tx
}

// comment runs code that only annotates results. A panic in it must not make them unknown: the message would be sent
// again each time.
func (a *attempt) comment(look func()) {
	defer func() {
		if p := recover(); p != nil {
			a.d.Logger.Error("the results of an attempt are believed as they are, by a fault of ours",
				"id", a.message.ID,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	look()
}

const noteUnverified = "the upstream's certificate was not verified (insecure_skip_verify)"

// failOver returns the recipients for which the next upstream may be tried: those that met a fault of the account or of
// the connection, and whose message cannot have been taken.
func failOver(results []mail.Result) []int {
	var again []int
	for _, r := range results {
		if (r.Class == mail.AccountFault || r.Class == mail.BackPressure) && !r.Uncertain {
			again = append(again, r.Recipient)
		}
	}
	return again
}

// loginRefused reports that the provider did not let the identity in, or gave no token for it, and that nothing was
// sent.
func loginRefused(results []mail.Result) bool {
	for _, r := range results {
		if r.Class != mail.AccountFault || r.Stage != mail.StageAuth || r.Uncertain {
			return false
		}
	}
	return len(results) > 0
}

// passedOver adds to later results why the upstream before did not take the message.
func passedOver(before, later []mail.Result) []mail.Result {
	for i := range later {
		for _, r := range before {
			if r.Recipient == later[i].Recipient {
				why := "after " + r.Upstream + ": " + mail.Cut(r.Reply.String(), 200)
				later[i].Note = strings.TrimPrefix(later[i].Note+"; "+why, "; ")
			}
		}
	}
	return later
}

// mergeResults lets a later result for a recipient replace the earlier one.
func mergeResults(results, later []mail.Result) []mail.Result {
	for _, r := range later {
		replaced := false
		for i := range results {
			if results[i].Recipient == r.Recipient {
				results[i], replaced = r, true
				break
			}
		}
		if !replaced {
			results = append(results, r)
		}
	}
	return results
}

// notNow is the outcome for recipients whose upstream has no free slot.
func notNow(pending []int, up *Upstream, until time.Time) []mail.Result {
	wait := time.Until(until)
	if until.IsZero() {
		wait = time.Second
	}
	results := make([]mail.Result, len(pending))
	for i, n := range pending {
		results[i] = mail.Result{Recipient: n, Class: mail.BackPressure, Stage: mail.StageConnect,
			Upstream: up.Config.Name,
			Reply:    mail.R(451, "4.4.5", "upstream %s has no free slot now", up.Config.Name), RetryAfter: wait}
	}
	return results
}

// unprepared is the outcome when the header could not be edited for an upstream: the mail waits. A signature that fails
// is deferred by the transport, which asks for it.
func unprepared(pending []int, name string, err error) []mail.Result {
	results := make([]mail.Result, len(pending))
	for i, n := range pending {
		results[i] = mail.Result{Recipient: n, Class: mail.Deferral, Stage: mail.StageSign, Upstream: name,
			Reply: mail.R(451, "4.3.0", "the header could not be edited for the upstream"),
			Err:   fmt.Errorf("prepare for %s: %w", name, err)}
	}
	return results
}

var replyFault = mail.R(451, "4.3.0", "local trouble, the message was not taken; try again later")

// unattempted defers every pending recipient for a fault of ours.
func unattempted(m *queue.Message) []mail.Result {
	var results []mail.Result
	for _, n := range pendingOf(m) {
		results = append(results, mail.Result{Recipient: n, Class: mail.Deferral, Stage: mail.StageConnect,
			Reply: replyFault})
	}
	return results
}
