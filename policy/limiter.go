package policy

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern/mail"
)

const (
	// maxBuckets bounds the memory of a Limiter to some 15 MB.
	maxBuckets = 50_000
	// evictionScan is how many of the longest unused buckets are considered for eviction.
	evictionScan = 32
	// saveEvery is the longest period that a crash forgets.
	saveEvery = 2 * time.Second
	// closeTimeout bounds the last save.
	closeTimeout = 10 * time.Second
)

// Usage is what a message counts against limits.
type Usage struct {
	Messages   int
	Recipients []mail.Address // of the envelope, known and new ones
	Bytes      int64
}

// Verdict is the answer of a Limiter. Refund is never nil.
type Verdict struct {
	OK    bool
	Limit Limit     // the exceeded limit with the longest wait
	Need  int64     // what the message counts against it
	Retry time.Time // when the message will pass, if nothing else is sent until then
	Never bool      // the message alone exceeds the limit, so it can never pass
	Local bool      // by the local share, since the shared counter did not answer
	// Refund returns what was taken, once, for a message that was not accepted in the end. New recipients stay known
	// and are not refunded.
	Refund func()
}

// Limiter has a token bucket for each login and limit, or takes from a counter that nodes share. It is safe for
// concurrent use.
type Limiter struct {
	store  LimitStore
	log    *slog.Logger
	known  *known
	size   int
	shared *sharing // nil: this node counts alone

	mu      sync.Mutex // guards all below
	now     time.Time  // the latest seen, so that no period refills twice
	buckets map[key]*bucket
	order   *list.List // of *bucket, the last used in front
	dirty   map[*bucket]struct{}
}

type key struct {
	login string
	limit Limit
}

// bucket is a token bucket. Its time must never run backwards: rate.Limiter would refill the same period twice.
type bucket struct {
	key
	tokens *rate.Limiter
	last   time.Time // when tokens were last taken
	place  *list.Element
}

// NewLimiter returns a Limiter with the buckets in store. Run saves them regularly, Close for the last time.
func NewLimiter(ctx context.Context, store LimitStore, now time.Time, log *slog.Logger) (*Limiter, error) {
	return newLimiter(ctx, store, now, log, maxBuckets)
}

func newLimiter(ctx context.Context, store LimitStore, now time.Time, log *slog.Logger, size int) (*Limiter, error) {
	l := emptyLimiter(store, now, log, size)
	states, err := store.LoadLimits(ctx, now)
	if err != nil {
		return nil, fmt.Errorf("load the state of limits: %w", err)
	}
	for _, s := range states {
		l.restoreLocked(now, s) // nobody else has it yet
	}
	return l, nil
}

func emptyLimiter(store LimitStore, now time.Time, log *slog.Logger, size int) *Limiter {
	return &Limiter{
		store: store, log: cmp.Or(log, slog.New(slog.DiscardHandler)), known: newKnown(store), size: size, now: now,
		buckets: make(map[key]*bucket), order: list.New(), dirty: make(map[*bucket]struct{}),
	}
}

// Take counts a message of login against all limits, or none if one is exceeded. An error means that the store could
// not say which recipients are new, or that the shared counter did not answer: our own trouble, temporary.
func (l *Limiter) Take(ctx context.Context, now time.Time, login string, limits []Limit, u Usage) (Verdict, error) {
	if l.shared != nil {
		return l.shared.take(ctx, now, login, limits, u)
	}
	var fresh []string
	if slices.ContainsFunc(limits, func(l Limit) bool { return l.Unit == NewRecipients }) {
		var err error
		if fresh, err = l.known.fresh(ctx, now, login, u.Recipients); err != nil {
			return Verdict{Refund: func() {}}, fmt.Errorf("look for new recipients of %q: %w", login, err)
		}
	}
	need := amounts{
		Messages: int64(u.Messages), Recipients: int64(len(u.Recipients)),
		NewRecipients: int64(len(fresh)), Bytes: u.Bytes,
	}
	v := l.take(now, login, limits, need)
	v.Refund = func() {}
	if !v.OK {
		return v, nil
	}
	l.known.remember(now, login, fresh)
	need[NewRecipients] = 0
	v.Refund = sync.OnceFunc(func() { l.refund(login, limits, need) })
	return v, nil
}

// amounts is what a message counts, by unit.
type amounts [Bytes + 1]int64

func (l *Limiter) take(now time.Time, login string, limits []Limit, need amounts) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	now = l.advanceLocked(now)
	v := Verdict{OK: true}
	for _, limit := range limits {
		n := need[limit.Unit]
		if n > limit.Count {
			return Verdict{Limit: limit, Need: n, Never: true}
		}
		if retry, ok := l.retryLocked(now, key{login, limit}, n); !ok && retry.After(v.Retry) {
			v = Verdict{Limit: limit, Need: n, Retry: retry}
		}
	}
	if !v.OK {
		return v
	}
	for i, limit := range limits {
		if n := need[limit.Unit]; n > 0 && !slices.Contains(limits[:i], limit) {
			l.spendLocked(now, key{login, limit}, n)
		}
	}
	l.evictLocked(now)
	return v
}

// retryLocked returns when n tokens will be available, ok if they are now. A bucket that does not exist is full.
func (l *Limiter) retryLocked(now time.Time, k key, n int64) (retry time.Time, ok bool) {
	b := l.buckets[k]
	if b == nil || n == 0 {
		return time.Time{}, true
	}
	missing := float64(n) - b.tokens.TokensAt(now)
	if missing <= 0 {
		return time.Time{}, true
	}
	// The millisecond makes up for rounding.
	seconds := missing / k.limit.perSecond()
	return now.Add(time.Duration(seconds*float64(time.Second)) + time.Millisecond), false
}

func (l *Limiter) spendLocked(now time.Time, k key, n int64) {
	b := l.buckets[k]
	if b == nil {
		b = l.addLocked(k, now)
	}
	b.last = now
	b.tokens.AllowN(now, int(n))
	l.order.MoveToFront(b.place)
	l.dirty[b] = struct{}{}
}

// refund returns tokens as of the last time some were taken, so it needs no clock. The next use discards any above the
// count.
func (l *Limiter) refund(login string, limits []Limit, taken amounts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, limit := range limits {
		b := l.buckets[key{login, limit}]
		if b == nil || taken[limit.Unit] == 0 || slices.Contains(limits[:i], limit) {
			continue // evicted meanwhile, so it is full
		}
		b.tokens.AllowN(b.last, -int(taken[limit.Unit]))
		l.dirty[b] = struct{}{}
	}
}

func (l *Limiter) advanceLocked(now time.Time) time.Time {
	if now.After(l.now) {
		l.now = now
	}
	return l.now
}

func (l *Limiter) addLocked(k key, now time.Time) *bucket {
	b := &bucket{key: k, last: now, tokens: rate.NewLimiter(rate.Limit(k.limit.perSecond()), int(k.limit.Count))}
	b.place = l.order.PushFront(b)
	l.buckets[k] = b
	return b
}

// evictLocked drops buckets above the bound. A dropped bucket counts as full, so it takes the fullest of the longest
// unused.
func (l *Limiter) evictLocked(now time.Time) {
	for len(l.buckets) > l.size {
		var victim *bucket
		lacking := 2.0
		e := l.order.Back()
		for i := 0; i < evictionScan && e != nil && lacking > 0; i, e = i+1, e.Prev() {
			b := e.Value.(*bucket)
			if lacks := b.lacks(now); lacks < lacking {
				victim, lacking = b, lacks
			}
		}
		l.removeLocked(victim)
	}
}

// lacks is the missing share of a bucket, between 0 and 1.
func (b *bucket) lacks(now time.Time) float64 {
	return 1 - b.tokens.TokensAt(now)/float64(b.limit.Count)
}

func (l *Limiter) removeLocked(b *bucket) {
	l.order.Remove(b.place)
	delete(l.buckets, b.key)
	delete(l.dirty, b)
}
