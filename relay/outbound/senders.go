package outbound

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"postern/mail"
	"postern/relay/queue"
)

// ownIdentity returns the mailbox that a message is sent from where identity = "sender": its reverse-path, and for a
// null reverse-path its header author. Policy has checked both. "" is the configured username.
func (u *Upstream) ownIdentity(m *queue.Message) string {
	if !u.Config.SendsAsSender() {
		return ""
	}
	from := m.Envelope.From
	if from.IsNull() {
		from = m.Author
	}
	// A report of ours goes as the username, if there is one.
	if from.IsNull() || m.Login == "" && m.Envelope.From.IsNull() && u.Config.Username != "" {
		return ""
	}
	// One mailbox, one pool: providers do not tell case apart. Of ASCII alone: to Unicode the sign of kelvin is a k.
	identity := mail.LowerASCII(from.String())
	if identity == mail.LowerASCII(u.Config.Username) {
		return ""
	}
	return identity
}

// identityFor returns the upstream identity of a message; "" is the configured username.
func (u *Upstream) identityFor(m *queue.Message) string {
	own := u.ownIdentity(m)
	if own != "" && u.withoutMailbox.has(own, time.Now()) {
		return ""
	}
	return own
}

// learn remembers whether the username could send for a sender that cannot log in itself.
func (a *attempt) learn(up *Upstream, own string, sent []mail.Result) {
	switch {
	case slices.ContainsFunc(sent, func(r mail.Result) bool { return r.Class == mail.AccountFault }):
		up.withoutMailbox.remove(own) // neither can: ask the provider for the sender again
	case slices.ContainsFunc(sent, func(r mail.Result) bool { return r.Class == mail.Delivered }):
		if up.withoutMailbox.add(own, time.Now()) {
			a.d.Logger.Info("the upstream does not let the sender in, its mail goes as the username",
				"upstream", up.Config.Name, "identity", own)
			a.d.Changed() // mail that waits for this identity need not any more
		}
	}
}

// Bounds of withoutMailbox. A mailbox that was made in the meantime is found after a day.
const (
	maxSenders = 10_000
	senderLife = 24 * time.Hour
)

// withoutMailbox remembers senders for which the provider has no mailbox: their mail is sent as the username.
type withoutMailbox struct {
	mu    sync.Mutex // guards known
	known *simplelru.LRU[string, time.Time]
}

func newWithoutMailbox() *withoutMailbox {
	known, _ := simplelru.NewLRU[string, time.Time](maxSenders, nil) // fails for a size below 1 only
	return &withoutMailbox{known: known}
}

func (s *withoutMailbox) has(identity string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.known.Get(identity)
	if ok && !now.Before(until) {
		s.known.Remove(identity)
		return false
	}
	return ok
}

// add reports whether the identity is new. A known one keeps its deadline.
func (s *withoutMailbox) add(identity string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, ok := s.known.Get(identity); ok && now.Before(until) {
		return false
	}
	s.known.Add(identity, now.Add(senderLife))
	return true
}

func (s *withoutMailbox) remove(identity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.Remove(identity)
}
