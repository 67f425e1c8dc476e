package graph

import (
	"time"

	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

// mailbox is what is known of one beside what its account does. It is guarded by the table of accounts.
type mailbox struct {
	large      account.Breaker // of large mail: the right to make drafts, and the way to where files go
	largeNote  string          // why large waits, for the trace
	blindUntil time.Time       // Sent Items may not be read, see mayLook
}

// Connections implements account.Held: they belong to no mailbox.
func (*mailbox) Connections() (idle, closing int) { return 0, 0 }

// Shed implements account.Held: there is none to close.
func (*mailbox) Shed(int) {}

// Blank implements account.Held.
func (m *mailbox) Blank() bool { return m.large.Ready() }

// slot is one reserved for a mailbox. It is used up by one Send.
type slot struct {
	*account.Slot[*mailbox]
	u    *Upstream
	used bool
}

// Reserve implements upstream.Transport.
func (u *Upstream) Reserve(now time.Time, identity string) (upstream.Slot, time.Time) {
	reserved, until := u.Table.Reserve(now, identity, nil)
	if reserved == nil {
		return nil, until
	}
	return &slot{Slot: reserved, u: u}, time.Time{}
}

// Release implements upstream.Slot.
func (s *slot) Release() {
	s.used = true
	s.Slot.Release(nil)
}
