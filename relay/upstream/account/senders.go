package account

import (
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// A provider that refuses one reverse-path (SendAsDenied) goes on refusing it until somebody changes a permission, and
// some throttle the whole mailbox that keeps asking. So after a second refusal in a row the sender's mail is not
// offered for a while. Others are not concerned.
const (
	senderFirst = time.Minute
	senderMost  = 15 * time.Minute
	maxSenders  = 256 // remembered for one account
)

// refusedSender is a reverse-path that the provider does not let us use.
type refusedSender struct {
	refusals int
	until    time.Time
	result   mail.Result // the last one
}

// SenderHeld reports that mail of a sender is not offered now, with what was said last.
func (s *Slot[H]) SenderHeld(now time.Time, from mail.Address) (said mail.Result, held bool) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	refused, ok := s.a.senders[from.String()]
	if !ok || !now.Before(refused.until) {
		return said, false
	}
	said = refused.result
	said.RetryAfter = max(said.RetryAfter, refused.until.Sub(now))
	return said, true
}

// SenderRefused remembers a refusal that concerns the sender.
func (s *Slot[H]) SenderRefused(now time.Time, from mail.Address, said mail.Result) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	key, a := from.String(), s.a
	refused, ok := a.senders[key]
	if !ok && len(a.senders) >= maxSenders && !a.forgetSenderLocked(now) {
		return
	}
	refused.refusals++
	refused.result = said
	if refused.refusals > 1 {
		refused.until = now.Add(doubled(senderFirst, senderMost, refused.refusals-1, s.t.set.Jitter()))
	}
	if a.senders == nil {
		a.senders = make(map[string]refusedSender)
	}
	a.senders[key] = refused
}

// SenderWorks forgets what was refused.
func (s *Slot[H]) SenderWorks(from mail.Address) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if len(s.a.senders) > 0 {
		delete(s.a.senders, from.String())
	}
}

// forgetSenderLocked makes room by one that is not held.
func (a *account[H]) forgetSenderLocked(now time.Time) bool {
	for key, refused := range a.senders {
		if !now.Before(refused.until) {
			delete(a.senders, key)
			return true
		}
	}
	return false
}

// Denied implements upstream.Transport. A sender refused once is asked for again with its next message, and is none.
func (t *Table[H]) Denied(now time.Time) []upstream.Denied {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []upstream.Denied
	for _, a := range t.accounts {
		for sender, refused := range a.senders {
			if now.Before(refused.until) {
				all = append(all, upstream.Denied{Sender: sender, Identity: a.name, Refusals: refused.refusals,
					Until: refused.until, Reply: refused.result.Reply})
			}
		}
	}
	slices.SortFunc(all, func(a, b upstream.Denied) int { return strings.Compare(a.Sender, b.Sender) })
	return all
}
