package submission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// While the database is away nothing can be queued (decision 0050). A message is taken all the same if an upstream
// takes it while the client waits, for all its recipients by one reply: what is left of one could not be kept.

// handOffFor is how long an upstream has to get such a message whole, where listeners want a verdict sooner. Nothing
// else can be done with it, and clients wait for some minutes.
const handOffFor = time.Minute

// Such a message waits so long for a slot, and asks for one so often. It cannot wait in the queue.
const (
	slotPatience = 10 * time.Second
	askForSlot   = 100 * time.Millisecond
)

// replyNotNow says less of the message than it seems: an upstream that gave no answer may have it.
var replyNotNow = mail.R(451, "4.3.0",
	"the database of this server is away, and no upstream took the message at once; try again later")

// handsOff reports whether the session's next message may be taken although it cannot be kept.
func (s *session) handsOff() bool {
	return s.service.Room.Away() != nil && s.listener.Handoff > 0 && s.waiver.by != byLearning
}

// handOffOnly is handOff for a message that cannot be kept. Its reply is the upstream's: 250 where all recipients have
// it, 5yz where it is refused for good for all of them. Else the client keeps the message, and is told to come back.
func (u *submission) handOffOnly(ctx context.Context) (mail.Reply, error) {
	if err := u.needsQueue(); err != nil {
		return mail.Reply{}, mail.Refuse(replyNotNow, err)
	}
	m := u.message
	m.AllOrNone = true
	slot := u.slotSoon()
	if slot == nil {
		return mail.Reply{}, mail.Refuse(replyNotNow, errors.New("no upstream has a free slot, or all are paused"))
	}
	defer slot.Release()
	m.Attempts = 1
	results := u.await(slot)
	if reply, err, final := u.final(results); final {
		return reply, err
	}
	return mail.Reply{}, mail.Refuse(replyNotNow, notTaken(m, results))
}

// needsQueue returns why the message cannot be handed off now, whatever an upstream says of it.
func (u *submission) needsQueue() error {
	m := u.message
	switch {
	case u.session.listener.Handoff <= 0:
		return errors.New("the listener hands nothing off")
	case m.Held:
		return errors.New("the message is to be held")
	case u.service.Outbound.InParts(m):
		return errors.New("its recipients do not fit into one transaction")
	case mayOweReport(m):
		return errors.New("its sender wants a report of success")
	}
	return nil
}

// mayOweReport reports whether a delivery may oblige us to a report, which nobody could keep.
func mayOweReport(m *queue.Message) bool {
	for _, r := range m.Recipients {
		if r.Notify&mail.NotifySuccess != 0 && !m.Envelope.From.IsNull() {
			return true
		}
	}
	return false
}

// slotSoon waits for a slot; nil: there is none soon. What is queued cannot leave, so that nobody is overtaken.
func (u *submission) slotSoon() queue.Slot {
	tick := time.NewTicker(askForSlot)
	defer tick.Stop()
	for end := time.Now().Add(slotPatience); ; {
		now := time.Now()
		slot, wait := u.service.Outbound.ReserveNow(now, u.message)
		if slot != nil || now.After(end) || wait.Until.After(end) {
			return slot
		}
		select {
		case <-tick.C:
		case <-u.service.Stopping:
			return nil
		}
	}
}

// await makes the attempt and waits for its end. What takes too long is broken off before the upstream has the whole
// message, and waited for behind that: only the upstream knows then.
func (u *submission) await(slot queue.Slot) []mail.Result {
	lease := new(queue.Lease)
	results := u.service.attempt(slot, u, lease)
	timer := time.NewTimer(max(u.session.listener.Handoff.Std(), handOffFor))
	defer timer.Stop()
	select {
	case r := <-results:
		return r
	case <-timer.C:
	case <-u.service.Stopping:
	}
	lease.Lose()
	return <-results
}

// notTaken says what became of a message that the client keeps.
func notTaken(m *queue.Message, results []mail.Result) error {
	if len(results) == 0 {
		return errors.New("the attempt had no result")
	}
	worst := results[0]
	for _, r := range results {
		if r.Class.Permanent() {
			worst = r
		}
	}
	return fmt.Errorf("%s said of %s: %s", worst.Upstream, m.Recipients[worst.Recipient].To, worst.Reply)
}
