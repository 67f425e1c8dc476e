package submission

import (
	"context"
	"fmt"
	"sync"

	"postern/mail"
	"postern/policy"
	"postern/relay/queue"
)

// takeLimits counts the message against the limits of its login, all or none.
func (u *submission) takeLimits(ctx context.Context) error {
	if w := u.session.waiver; w.by == byLearning {
		var err error
		u.hold, u.refund, err = u.service.held.learned(ctx, w.client, u.size, u.session.settings.StoreSize)
		return err
	}
	rcpts := make([]mail.Address, len(u.envelope.Recipients))
	for i, r := range u.envelope.Recipients {
		rcpts[i] = r.To
	}
	verdict, err := u.service.Limiter.Take(ctx, u.now, u.session.identity.Login, u.session.effective.Limits,
		policy.Usage{Messages: 1, Recipients: rcpts, Bytes: u.size})
	if err != nil {
		return err
	}
	u.refund, u.local = verdict.Refund, verdict.Local
	if verdict.OK {
		return nil
	}
	reply := u.session.effective.LimitRefusal(verdict, u.now)
	u.service.overLimit.WithLabelValues(u.session.effective.OverLimit).Inc()
	switch {
	case u.session.effective.OverLimit == policy.Hold && !verdict.Never:
		return u.takeHold(ctx, verdict, reply)
	case u.session.effective.OverLimit == policy.Lock:
		u.service.Accounts.Lock(ctx, u.session.identity.Login, "over the "+verdict.Limit.String()+" limit")
	}
	return mail.Refuse(reply, nil)
}

// takeHold holds the message for an operator, if there is room for it among the held mail.
func (u *submission) takeHold(ctx context.Context, v policy.Verdict, over mail.Reply) error {
	giveBack, ok, err := u.service.held.take(ctx, u.session.identity.Login, u.size, u.session.effective.MaxHeld,
		u.session.settings.StoreSize/heldShare)
	switch {
	case err != nil:
		return err
	case !ok:
		return mail.Refuse(u.session.effective.HeldRefusal(v), nil)
	}
	u.hold, u.refund = over.Text, giveBack
	return nil
}

// heldShare is the part of store.max_size that one login's held mail may take: 1/heldShare.
const heldShare = 10

// heldMail bounds the mail of a login that over_limit = "hold" keeps: only a person releases it, so it could fill the
// store. It is counted in the store when first needed, and again after the command line has changed the queue; in
// between, each held message is added. It knows only logins that have authenticated, so their number bounds it.
type heldMail struct {
	list func(context.Context, queue.Filter) ([]*queue.Message, error)

	mu     sync.Mutex // guards logins, also while they are counted
	logins map[string]*heldCount
}

type heldCount struct {
	messages int
	octets   int64
	upTo     int // no more messages than these were counted; 0: all were
}

func newHeldMail(list func(context.Context, queue.Filter) ([]*queue.Message, error)) *heldMail {
	return &heldMail{list: list, logins: make(map[string]*heldCount)}
}

// take makes room for one more message of a login, unless it has max messages held already, or with this one would have
// more octets than maxOctets (0: any); one message alone may be larger. giveBack is for a message that is then not
// held.
func (h *heldMail) take(ctx context.Context, login string, size int64, max int, maxOctets int64) (
	giveBack func(), ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.logins[login]
	if n == nil || n.upTo > 0 && n.upTo < max { // another policy, which lets more be held
		if n, err = h.count(ctx, login, max); err != nil {
			return nil, false, fmt.Errorf("count the held mail of %q: %w", login, err)
		}
		h.logins[login] = n
	}
	if n.messages >= max || maxOctets > 0 && n.messages > 0 && n.octets+size > maxOctets {
		return nil, false, nil
	}
	n.messages++
	n.octets += size
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		n.messages-- // of a count that may be forgotten already
		n.octets -= size
	}), true, nil
}

// count looks into the store. More than max need not be known.
func (h *heldMail) count(ctx context.Context, login string, max int) (*heldCount, error) {
	held, err := h.list(ctx, queue.Filter{Login: login, Held: true, Limit: max})
	if err != nil {
		return nil, err
	}
	n := &heldCount{messages: len(held)}
	if n.messages >= max {
		n.upTo = max
	}
	for _, m := range held {
		n.octets += m.Size
	}
	return n, nil
}

// forget discards all counts.
func (h *heldMail) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.logins)
}
