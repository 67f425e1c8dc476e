package oauth

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// node is a store as a node sees it whose clock is wrong: the clock of all is so far ahead of its own.
type node struct {
	GrantStore
	ahead time.Duration
	saved func()
}

func (n node) Ahead() time.Duration { return n.ahead }

func (n node) SaveGrant(ctx context.Context, upstream string, sealed []byte, version int64) (int64, error) {
	v, err := n.GrantStore.SaveGrant(ctx, upstream, sealed, version)
	if n.saved != nil {
		n.saved()
	}
	return v, err
}

// A node whose clock is an hour ahead sees the lease of another as long as it lives, and no longer, and the token that
// the other got. The hour passes in the test: its now is then what was now before.
func TestNodesWithDifferentClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		right := consented(t, a, personOptions(a, store))
		g, version, _ := right.loadGrant(t.Context())
		g.Lease, g.Leasing = time.Now().Add(leaseFor), "other"
		if _, err := right.saveGrant(t.Context(), g, version); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		ahead := newSource(t, personOptions(a, node{GrantStore: store, ahead: -time.Hour}))
		_, err := ahead.Token(t.Context(), mailbox)
		if e := new(Error); !errors.As(err, &e) || e.Class != mail.BackPressure {
			t.Fatalf("a lease that lives was taken over: %v", err)
		}
		wantRequests(t, a, "token", 0)
		time.Sleep(leaseFor)
		first := mustToken(t, ahead)
		wantRequests(t, a, "token", 1)

		// Another takes that token, and what is stored is by the clock of all.
		third := newSource(t, personOptions(a, node{GrantStore: store, ahead: -time.Hour}))
		if got := mustToken(t, third); !got.AccessToken.Equal(first.AccessToken) || !got.Expiry.Equal(first.Expiry) {
			t.Errorf("token until %v, want %v", got.Expiry, first.Expiry)
		}
		stored, _, _ := right.loadGrant(t.Context())
		if want := first.Expiry.Add(-time.Hour); !stored.Expiry.Equal(want) || !stored.Lease.IsZero() {
			t.Errorf("stored until %v, want %v", stored.Expiry, want)
		}
		wantRequests(t, a, "token", 1)
		wantRequests(t, a, "reuse", 0)
	})
}

// A lease that ends in hours was made while the clock of a machine was wrong. It stops nobody.
func TestLeaseOfAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		g, version, _ := s.loadGrant(t.Context())
		g.Lease, g.Leasing = time.Now().Add(5*time.Hour), "dead"
		if _, err := s.saveGrant(t.Context(), g, version); err != nil {
			t.Fatal(err)
		}
		mustToken(t, s)
	})
}

// A process that is stopped between the save of its lease and the question does not ask with a refresh token that
// another node has used meanwhile.
func TestStoppedWithALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		other := consented(t, a, personOptions(a, store))
		once := true
		s := newSource(t, personOptions(a, node{GrantStore: store, saved: func() {
			if once {
				once = false
				// The time-out of the caller would end it, had it not been stopped as well.
				time.Sleep(leaseFor/2 + time.Second)
				g, version, e := other.loadGrant(t.Context())
				if e != nil {
					t.Fatal(e)
				}
				g.Lease = time.Time{} // it ran out
				if _, err := other.saveGrant(t.Context(), g, version); err != nil {
					t.Fatal(err)
				}
				mustToken(t, other)
			}
		}}))
		tok, e := s.refresh(t.Context(), nil)
		if e != nil || !tok.AccessToken.Equal(mustToken(t, other).AccessToken) {
			t.Errorf("%v, %v", tok, e)
		}
		wantRequests(t, a, "token", 1)
		wantRequests(t, a, "reuse", 0)
	})
}
