package relay

import (
	"cmp"
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

// dispatcher joins the queue and the upstreams: it chooses the route of a message at each attempt, asks
// an upstream of that route for a place, and makes the attempt. It implements queue.Dispatcher.
type dispatcher struct{ srv *Server }

// Reserve takes a place at the first upstream of the message's route that is not paused, or one in
// standby. An upstream that is merely busy is waited for: the next one of a route is for faults, not for
// load. Where recipients have different routes, a paused one holds up no other.
func (d *dispatcher) Reserve(now time.Time, m *queue.Message) (queue.Ticket, queue.Wait) {
	t, up, wait := d.reserve(now, m)
	switch {
	case t == nil && up != nil && wait.Key == up.config.Name && up.standby.admit():
		return &ticket{srv: d.srv, state: d.srv.state.Load(), upstream: up, standby: true}, wait
	case t == nil:
		return nil, wait
	}
	return t, wait
}

// reserveNow takes a place that is free now and that nobody was promised, for a hand-off.
func (d *dispatcher) reserveNow(now time.Time, m *queue.Message) (*ticket, queue.Wait) {
	t, up, wait := d.reserve(now, m)
	if t != nil && up != nil && up.standby.waiting() {
		t.Release()
		return nil, wait
	}
	return t, wait
}

// reserve takes a free place. The upstream comes with it, and without it where all its places are taken.
func (d *dispatcher) reserve(now time.Time, m *queue.Message) (*ticket, *configured, queue.Wait) {
	st := d.srv.state.Load()
	pending := pendingOf(m)
	if len(pending) == 0 {
		return &ticket{srv: d.srv, state: st}, nil, queue.Wait{} // nothing to send: the attempt settles it
	}
	route := st.routeFor(m, m.Recipients[pending[0]].To)
	slot, up, wait := reserve(now, m, route)
	if !wait.Until.IsZero() && len(pending) > 1 && len(st.routes) > 0 {
		slot, up, wait = reserveOther(now, m, st.groups(m)[1:], wait)
	}
	if slot == nil {
		return nil, up, wait
	}
	return &ticket{srv: d.srv, state: st, slot: slot, upstream: up}, up, wait
}

func reserve(now time.Time, m *queue.Message, route []*configured) (place, *configured, queue.Wait) {
	var wait queue.Wait
	name := nameOf(route, m)
	for _, up := range route {
		identity := up.identityFor(m)
		key := up.keyFor(identity)
		slot, until := up.reserve(now, identity)
		if slot != nil {
			return slot, up, queue.Wait{Key: key, Route: name}
		}
		if until.IsZero() {
			return nil, up, queue.Wait{Key: key, Route: name}
		}
		if wait.Until.IsZero() || until.Before(wait.Until) {
			wait = queue.Wait{Key: key, Route: name, Until: until}
		}
	}
	return nil, nil, wait
}

// reserveOther goes on to the routes of other recipients. wait says until when the first is paused; where all are, what is
// returned says until when, by the names of all.
func reserveOther(now time.Time, m *queue.Message, others []group, wait queue.Wait) (place, *configured, queue.Wait) {
	if len(others) == 0 {
		return nil, nil, wait
	}
	names := []string{cmp.Or(wait.Route, wait.Key)}
	for _, g := range others {
		slot, up, w := reserve(now, m, g.route)
		if slot != nil || w.Until.IsZero() {
			return slot, up, w
		}
		names = append(names, cmp.Or(w.Route, w.Key))
		if w.Until.Before(wait.Until) {
			wait.Key, wait.Until = w.Key, w.Until
		}
	}
	slices.Sort(names)
	wait.Route = strings.Join(names, "; ")
	return nil, nil, wait
}

// nameOf is what a message waits for while none of its route can be used.
func nameOf(route []*configured, m *queue.Message) string {
	if len(route) == 1 {
		return "" // the one key says it
	}
	keys := make([]string, len(route))
	for i, up := range route {
		keys[i] = up.keyFor(up.identityFor(m))
	}
	return strings.Join(keys, ", ")
}

// ticket is one attempt. It sends to one upstream after the other until every pending recipient has a
// result that no further upstream of its route can better.
type ticket struct {
	srv      *Server
	state    *state
	slot     place
	upstream *configured
	standby  bool    // instead of the slot
	used     []place // that took mail: kept until that is on record
	taken    func([]mail.Result)
	told     []mail.Result // what taken was told, or would have been
	prefix   []byte        // signed while waiting for the place at upstream; nil: not
}

// Release implements queue.Ticket.
func (t *ticket) Release() {
	t.leaveStandby()
	if t.slot != nil {
		t.used, t.slot = append(t.used, t.slot), nil
	}
	for _, slot := range t.used {
		slot.Release()
	}
	t.used = nil
}

func (t *ticket) leaveStandby() {
	if t.standby {
		t.upstream.standby.leave()
		t.standby = false
	}
}

// Attempt implements queue.Ticket. It returns one result for each pending recipient. A panic in it, a
// fault of ours that one message brings out, defers what is left of that message instead of ending the service for all.
func (t *ticket) Attempt(ctx context.Context, m *queue.Message, c mail.Content, taken func([]mail.Result)) (results []mail.Result) {
	t.taken = taken
	defer func() {
		if p := recover(); p != nil {
			t.srv.log.Error("an attempt failed by a fault of ours", "id", m.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			results = mergeResults(mergeResults(unattempted(m), results), t.told)
		}
	}()
	groups := t.state.groups(m)
	for i, group := range groups {
		results = append(results, t.deliver(ctx, m, c, group)...)
		if i < len(groups)-1 {
			t.tell(results)
		}
	}
	return results
}

// tell says for whom the message was taken while the attempt goes on.
func (t *ticket) tell(results []mail.Result) {
	results = slices.DeleteFunc(slices.Clone(results), func(r mail.Result) bool { return r.Class != mail.Delivered })
	if len(results) == 0 {
		return
	}
	t.told = mergeResults(t.told, results)
	if t.taken != nil {
		t.taken(results)
	}
}

// group is the pending recipients of a message that share a route, as indexes.
type group struct {
	route   []*configured
	pending []int
}

// inParts reports that the recipients of a message do not fit into one transaction, by their routes or by their number.
func (st *state) inParts(m *queue.Message) bool {
	if len(m.Recipients) == 1 {
		return false
	}
	groups := st.groups(m)
	if len(groups) != 1 {
		return true
	}
	return slices.ContainsFunc(groups[0].route, func(up *configured) bool { return len(m.Recipients) > up.config.MaxRecipients })
}

// deliver tries the upstreams of one route in order. The next one is tried only for recipients that an
// upstream could not take for reasons of its own; never after a final dot without a reply.
func (t *ticket) deliver(ctx context.Context, m *queue.Message, c mail.Content, g group) []mail.Result {
	var results []mail.Result
	waiting, wait := g.pending, time.Time{}
	for _, up := range g.route {
		slot, until := t.take(ctx, up, m, c)
		if slot == nil {
			wait = until
			continue
		}
		sent := t.sendAs(ctx, slot, up, m, c, waiting)
		results = mergeResults(results, passedOver(results, sent))
		if waiting = failOver(sent); len(waiting) == 0 {
			break
		}
		t.tell(results)
	}
	if results == nil {
		return notNow(g.pending, g.route[len(g.route)-1], wait)
	}
	return results
}

// take uses the slot that was reserved for the attempt where it fits, waits for the one that it was
// promised, and asks for one elsewhere.
func (t *ticket) take(ctx context.Context, up *configured, m *queue.Message, c mail.Content) (place, time.Time) {
	if t.slot != nil && t.upstream == up {
		slot := t.slot
		t.slot = nil
		return slot, time.Time{}
	}
	if t.standby && t.upstream == up {
		defer t.leaveStandby()
		t.signAhead(ctx, up, m, c)
		return up.standby.await(ctx)
	}
	return up.reserve(time.Now(), up.identityFor(m))
}

// signAhead makes the signature before the place is there, which then waits for nothing of ours. What goes wrong here goes wrong
// again, and is told, when it is sent.
func (t *ticket) signAhead(ctx context.Context, up *configured, m *queue.Message, c mail.Content) {
	tx := upstream.Transaction{Content: c}
	if err := t.state.prepare(&tx, up, m); err != nil || tx.Prefix == nil {
		return
	}
	if prefix, err := tx.Prefix(ctx); err == nil {
		t.prefix = prefix
	}
}

// sendAs sends as the message's own identity. When that is its sender and the provider does not let it in, there may be no
// such mailbox: the username sends it, and if it can, does so from now on.
func (t *ticket) sendAs(ctx context.Context, slot place, up *configured, m *queue.Message, c mail.Content, pending []int) []mail.Result {
	sent := t.send(ctx, slot, up, m, c, pending)
	own := up.ownIdentity(m)
	switch {
	case own == "" || len(sent) == 0:
		return sent
	case sent[0].Identity == up.config.Username:
		t.learn(up, own, sent)
		return sent
	case !loginRefused(sent):
		return sent
	}
	slot, until := up.reserve(time.Now(), "")
	if slot == nil {
		if until.IsZero() { // it is only busy: the sender's mail waits there from now on
			up.homeless.add(own, time.Now())
			t.srv.upstreamChanged()
		}
		return sent
	}
	instead := t.send(ctx, slot, up, m, c, pending)
	t.learn(up, own, instead)
	if loginRefused(instead) { // nobody is let in: what was said of the sender holds
		return sent
	}
	return instead
}

// learn remembers whether the username could send for a sender that is not let in itself.
func (t *ticket) learn(up *configured, own string, sent []mail.Result) {
	switch {
	case slices.ContainsFunc(sent, func(r mail.Result) bool { return r.Class == mail.AccountFault }):
		up.homeless.remove(own) // neither can: ask the provider for the sender again
	case slices.ContainsFunc(sent, func(r mail.Result) bool { return r.Class == mail.Delivered }):
		if up.homeless.add(own, time.Now()) {
			t.srv.log.Info("the upstream does not let the sender in, its mail goes as the username", "upstream", up.config.Name, "identity", own)
			t.srv.upstreamChanged() // mail that waits for this identity need not any more
		}
	}
}

// send uses the place and gives it back, unless a message was taken there: then Release does, later.
func (t *ticket) send(ctx context.Context, slot place, up *configured, m *queue.Message, c mail.Content, pending []int) []mail.Result {
	t.used = append(t.used, slot)
	results := t.transact(ctx, slot, up, m, c, pending)
	if !slices.ContainsFunc(results, func(r mail.Result) bool { return r.Class == mail.Delivered || r.Uncertain }) {
		t.used = t.used[:len(t.used)-1]
		slot.Release()
	}
	return results
}

func (t *ticket) transact(ctx context.Context, slot place, up *configured, m *queue.Message, c mail.Content, pending []int) []mail.Result {
	tx := upstream.Transaction{
		ID:         m.ID,
		From:       up.reversePath(m, t.state.bounceFrom, time.Now()),
		Recipients: make([]mail.Recipient, len(pending)),
		Envelope:   make([]mail.Address, len(m.Recipients)),
		Content:    c,
		Ret:        m.Envelope.Ret,
		EnvID:      m.Envelope.EnvID,
		EightBit:   m.EightBit,
		Received:   m.Received,
	}
	for i := range m.Recipients {
		tx.Envelope[i] = m.Recipients[i].To
	}
	for i, n := range pending {
		tx.Recipients[i] = m.Recipients[n].Recipient
		tx.Doubts = max(tx.Doubts, m.Recipients[n].Doubts)
	}
	tx.Last = tx.Doubts >= queue.MaxDoubts-1
	if err := t.state.prepare(&tx, up, m); err != nil {
		return unsigned(pending, up.config.Name, err)
	}
	if t.prefix != nil && up == t.upstream {
		tx.Prefix = func(context.Context) ([]byte, error) { return t.prefix, nil }
	}
	tx.Taken = func(taken []mail.Result) {
		for i := range taken {
			taken[i].Recipient = pending[taken[i].Recipient]
		}
		t.tell(taken)
	}
	if !tx.From.IsNull() { // else learnNull looks
		tx.Review = func(results []mail.Result) (doubt upstream.Doubt) {
			t.comment(m, func() { doubt = t.review(up, m, pending, results) })
			return doubt
		}
	}
	results := slot.Send(ctx, tx)
	t.comment(m, func() {
		if tx.From.IsNull() {
			up.learnNull(results, time.Now())
		}
		up.tell(results, m)
	})
	for i := range results {
		results[i].Recipient = pending[results[i].Recipient]
		if up.config.InsecureSkipVerify {
			results[i].Note = strings.TrimPrefix(results[i].Note+"; "+noteUnverified, "; ")
		}
		t.srv.metrics.attempts.WithLabelValues(up.config.Name, results[i].Class.String()).Inc()
	}
	return results
}

// comment runs what looks at results. A panic in it must not make them unknown: what was taken would be sent again, each time.
func (t *ticket) comment(m *queue.Message, look func()) {
	defer func() {
		if p := recover(); p != nil {
			t.srv.log.Error("the results of an attempt are believed as they are, by a fault of ours", "id", m.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	look()
}

const noteUnverified = "the upstream's certificate was not verified (insecure_skip_verify)"

// failOver returns the recipients for which the next upstream may be tried: those that met a fault of
// the account or of the connection, and whose message cannot have been taken.
func failOver(results []mail.Result) []int {
	var again []int
	for _, r := range results {
		if (r.Class == mail.AccountFault || r.Class == mail.BackPressure) && !r.Uncertain {
			again = append(again, r.Recipient)
		}
	}
	return again
}

// passedOver adds to later results why the upstream before did not take the message.
func passedOver(before, later []mail.Result) []mail.Result {
	for i := range later {
		for _, r := range before {
			if r.Recipient == later[i].Recipient {
				later[i].Note = strings.TrimPrefix(later[i].Note+"; after "+r.Upstream+": "+mail.Cut(r.Reply.String(), 200), "; ")
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

// notNow is the outcome for recipients whose upstream has no place at the moment.
func notNow(pending []int, up *configured, until time.Time) []mail.Result {
	wait := time.Until(until)
	if until.IsZero() {
		wait = time.Second
	}
	results := make([]mail.Result, len(pending))
	for i, n := range pending {
		results[i] = mail.Result{Recipient: n, Class: mail.BackPressure, Stage: mail.StageConnect, Upstream: up.config.Name,
			Reply: mail.R(451, "4.4.5", "upstream %s has no place for this now", up.config.Name), RetryAfter: wait}
	}
	return results
}

// unsigned is the outcome when signing failed: the mail waits, since there is no unsigned send.
func unsigned(pending []int, name string, err error) []mail.Result {
	results := make([]mail.Result, len(pending))
	for i, n := range pending {
		results[i] = mail.Result{Recipient: n, Class: mail.Deferral, Stage: mail.StageSign, Upstream: name,
			Reply: mail.R(451, "4.7.5", "the message could not be signed"), Err: fmt.Errorf("sign for %s: %w", name, err)}
	}
	return results
}

// unattempted defers every pending recipient for a fault of ours.
func unattempted(m *queue.Message) []mail.Result {
	var results []mail.Result
	for _, n := range pendingOf(m) {
		results = append(results, mail.Result{Recipient: n, Class: mail.Deferral, Stage: mail.StageConnect, Reply: replyLocal})
	}
	return results
}

// pendingOf returns the indexes of the recipients that still wait.
func pendingOf(m *queue.Message) []int {
	var pending []int
	for i := range m.Recipients {
		if m.Recipients[i].Status == queue.Pending {
			pending = append(pending, i)
		}
	}
	return pending
}
