package upstream

import (
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream/internal/gate"
)

// A provider that refuses one reverse-path (SendAsDenied) goes on refusing it until somebody changes a permission, and some
// throttle the whole mailbox that keeps asking. So after a second refusal in a row the sender's mail is not offered for a
// while. Others are not concerned.
const (
	senderFirst = time.Minute
	senderMost  = 15 * time.Minute
	maxSenders  = 256 // remembered for one identity
)

// refusedSender is a reverse-path that the provider does not let us use.
type refusedSender struct {
	refusals int
	until    time.Time
	fault    fault // the last one
}

// heldSender returns why mail of a sender is not offered now, nil if it is.
func (s *Slot) heldSender(now time.Time, from mail.Address) *fault {
	s.u.mu.Lock()
	defer s.u.mu.Unlock()
	held, ok := s.id.senders[from.String()]
	if !ok || !now.Before(held.until) {
		return nil
	}
	f := held.fault
	f.retryAfter = max(f.retryAfter, held.until.Sub(now))
	return &f
}

// senderRefused remembers a refusal that concerns the sender.
func (s *Slot) senderRefused(now time.Time, from mail.Address, f *fault) {
	s.u.mu.Lock()
	defer s.u.mu.Unlock()
	key, id := from.String(), s.id
	held, ok := id.senders[key]
	if !ok && len(id.senders) >= maxSenders && !id.forgetSenderLocked(now) {
		return
	}
	held.refusals++
	held.fault = *f
	if held.refusals > 1 {
		held.until = now.Add(gate.Doubled(senderFirst, senderMost, held.refusals-1, s.u.cfg.Jitter()))
	}
	if id.senders == nil {
		id.senders = make(map[string]refusedSender)
	}
	id.senders[key] = held
}

// senderWorks forgets what was refused.
func (s *Slot) senderWorks(from mail.Address) {
	s.u.mu.Lock()
	defer s.u.mu.Unlock()
	if len(s.id.senders) > 0 {
		delete(s.id.senders, from.String())
	}
}

// forgetSenderLocked makes room by one that is not held.
func (id *identity) forgetSenderLocked(now time.Time) bool {
	for key, held := range id.senders {
		if !now.Before(held.until) {
			delete(id.senders, key)
			return true
		}
	}
	return false
}

// Denied is a reverse-path that the provider does not let us use, and whose mail is not offered for a while.
type Denied struct {
	Sender   string
	Identity string
	Refusals int // in a row
	Until    time.Time
	Reply    mail.Reply
}

// Denied lists them, in order of name. One refused once is asked for again with its next message, and is none.
func (u *Upstream) Denied(now time.Time) []Denied {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []Denied
	for _, id := range u.identities {
		for sender, held := range id.senders {
			if now.Before(held.until) {
				all = append(all, Denied{sender, id.name, held.refusals, held.until, held.fault.reply})
			}
		}
	}
	slices.SortFunc(all, func(a, b Denied) int { return strings.Compare(a.Sender, b.Sender) })
	return all
}
