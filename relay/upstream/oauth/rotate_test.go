package oauth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/seal"
)

var errDisk = errors.New("disk full")

func TestRotationOverDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{})
		s := consented(t, a, personOptions(a, NewMemoryGrants()))
		for range 3 * 24 * 6 {
			if _, _, ok := a.Valid(mustToken(t, s).AccessToken.Reveal()); !ok {
				t.Fatal("a token that is not valid")
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
		}
		if n := a.Requests("token"); n < 72 || n > 80 {
			t.Errorf("%d requests in three days", n)
		}
		wantRequests(t, a, "reuse", 0)
	})
}

func TestRestartUsesTheStoredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		first := mustToken(t, s)
		s.Close()
		again := mustToken(t, newSource(t, personOptions(a, store)))
		if !again.AccessToken.Equal(first.AccessToken) || !again.Expiry.Equal(first.Expiry) {
			t.Error("the next process fetched a token while there was a good one")
		}
		wantRequests(t, a, "token", 1)
	})
}

// The order of refresh, stopped between any two steps: the access token is used only after the refresh token that came
// with it is durable, and no step loses the consent.
func TestStoppedBetweenSteps(t *testing.T) {
	for _, tc := range []struct {
		name     string
		skip     int  // saves that work: the lease, the pair
		written  bool // the store has written, and says that it has not
		requests int  // made before the store is well again
	}{
		{"lease not saved", 0, false, 0},
		{"lease saved, reported as not", 0, true, 0},
		{"pair not saved", 1, false, 1},
		{"pair saved, reported as not", 1, true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, store := fake(fakeprovider.OAuthOptions{}), &flakyStore{MemoryGrants: NewMemoryGrants()}
				s := consented(t, a, personOptions(a, store))
				store.fail(errDisk, tc.skip, tc.written)
				tok, err := s.Token(t.Context(), mailbox)
				e := wantFault(t, err, mail.BackPressure, codeStore)
				if !errors.Is(err, errDisk) || !tok.AccessToken.IsZero() || !e.Temporary() {
					t.Fatalf("token %v, %v", tok, err)
				}
				wantRequests(t, a, "token", tc.requests)
				for range 100 { // it stays so, and the server is not asked for more
					time.Sleep(10 * time.Second)
					if _, err := s.Token(t.Context(), mailbox); err == nil && !tc.written {
						t.Fatal("a token that is not durable was handed out")
					}
				}
				if tc.skip == 1 {
					wantRequests(t, a, "token", 1)
				}
				store.fail(nil, 0, false)
				time.Sleep(pressureLast)
				if _, _, ok := a.Valid(mustToken(t, s).AccessToken.Reveal()); !ok {
					t.Error("the token is not valid")
				}
				wantRequests(t, a, "token", 1)
				wantRequests(t, a, "reuse", 0)
				s.Close()

				time.Sleep(2 * time.Hour) // and the next process goes on from what is stored
				mustToken(t, newSource(t, personOptions(a, store)))
				wantRequests(t, a, "reuse", 0)
			})
		})
	}
}

func TestPendingPairOutlivesItsAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), &flakyStore{MemoryGrants: NewMemoryGrants()}
		s := consented(t, a, personOptions(a, store))
		store.fail(errDisk, 1, false)
		if _, err := s.Token(t.Context(), mailbox); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(5 * time.Hour)
		store.fail(nil, 0, false)
		if _, _, ok := a.Valid(mustToken(t, s).AccessToken.Reveal()); !ok {
			t.Error("the token is not valid")
		}
		wantRequests(t, a, "token", 2)
		wantRequests(t, a, "reuse", 0)
	})
}

// Another node takes the lease over while our pair cannot be saved: ours still comes after the refresh token it has.
func TestPendingPairAfterLeaseTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), &flakyStore{MemoryGrants: NewMemoryGrants()}
		s := consented(t, a, personOptions(a, store))
		store.fail(errDisk, 1, false)
		if _, err := s.Token(t.Context(), mailbox); err == nil {
			t.Fatal("no error")
		}
		store.fail(nil, 0, false)
		other := newSource(t, personOptions(a, store))
		g, version, e := other.loadGrant(t.Context())
		if e != nil {
			t.Fatal(e)
		}
		g.Lease, g.Leasing = time.Now().Add(leaseFor), other.node
		if _, err := other.saveGrant(t.Context(), g, version); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pressureLast)
		mustToken(t, s)
		wantRequests(t, a, "token", 1)
		if tok := mustToken(t, other); tok.AccessToken.IsZero() {
			t.Error("the other node has nothing")
		}
		wantRequests(t, a, "token", 1)
	})
}

// Nodes share the grant: one refreshes, the others take what it got, and the server never sees a refresh token twice.
func TestNodesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		a.Fail(fakeprovider.Fault{Delay: 2 * time.Second})
		nodes := []*Source{consented(t, a, personOptions(a, store))}
		for range 4 {
			nodes = append(nodes, newSource(t, personOptions(a, store)))
		}
		for range 48 {
			var wg sync.WaitGroup
			for i, s := range nodes {
				wg.Go(func() {
					tok, err := s.Token(t.Context(), mailbox)
					if err != nil {
						t.Errorf("node %d: %v", i, err)
						return
					}
					if _, _, ok := a.Valid(tok.AccessToken.Reveal()); !ok {
						t.Errorf("node %d: the token is not valid", i)
					}
				})
			}
			wg.Wait()
			time.Sleep(30 * time.Minute)
			synctest.Wait()
		}
		if n := a.Requests("token"); n > 30 {
			t.Errorf("%d requests of %d nodes in a day", n, len(nodes))
		}
		wantRequests(t, a, "reuse", 0)
	})
}

func TestLeaseOfADeadNodeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		g, version, _ := s.loadGrant(t.Context())
		g.Lease, g.Leasing = time.Now().Add(leaseFor), "dead"
		if _, err := s.saveGrant(t.Context(), g, version); err != nil {
			t.Fatal(err)
		}
		_, err := s.Token(t.Context(), mailbox)
		if e := new(Error); !errors.As(err, &e) || e.Class != mail.BackPressure {
			t.Fatalf("%v", err)
		}
		time.Sleep(leaseFor)
		mustToken(t, s)
	})
}

// The consent is revoked; nobody is asked again before the person has logged in, and then at once, also by another
// process.
func TestRevokedUntilLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		mustToken(t, s)
		a.RevokeConsents(mailbox)
		time.Sleep(2 * time.Hour)
		_, err := s.Token(t.Context(), mailbox)
		e := wantFault(t, err, mail.AccountFault, "AADSTS50173")
		if e.Fix != "run: postern upstream login office" {
			t.Errorf("fix %q", e.Fix)
		}
		asked := a.Requests("token")
		time.Sleep(lookEvery)
		_, err = s.Token(t.Context(), mailbox) // looks at the store, not at the server
		wantFault(t, err, mail.AccountFault, "AADSTS50173")
		wantRequests(t, a, "token", asked)

		putGrant(t, newSource(t, personOptions(a, store)), a.Consent(client, mailbox, scope))
		time.Sleep(lookEvery)
		mustToken(t, s)
	})
}

func TestLoginWhileAskingWithTheOldGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		a.RevokeConsents(mailbox)
		a.Fail(fakeprovider.Fault{Delay: 5 * time.Second, Times: 1})
		var wg sync.WaitGroup
		wg.Go(func() { mustToken(t, s) })
		time.Sleep(time.Second)
		putGrant(t, s, a.Consent(client, mailbox, scope))
		wg.Wait()
	})
}

// The old grant works still, but what the person decided meanwhile counts.
func TestLoginOvertakesARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		a.Fail(fakeprovider.Fault{Delay: 5 * time.Second, Times: 1})
		var wg sync.WaitGroup
		wg.Go(func() {
			if who, _, ok := a.Valid(mustToken(t, s).AccessToken.Reveal()); !ok || who != "bob@example.com" {
				t.Errorf("token for %q", who)
			}
		})
		time.Sleep(time.Second)
		putGrant(t, s, a.Consent(client, "bob@example.com", scope))
		wg.Wait()
	})
}

// The server's answer is lost after it has replaced the refresh token. A server that forgives nothing revokes the
// consent, and the person is told; one that keeps refresh tokens does not mind.
func TestAnswerLost(t *testing.T) {
	for _, keeps := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a, store := fake(fakeprovider.OAuthOptions{KeepRefresh: keeps}), NewMemoryGrants()
			s := consented(t, a, personOptions(a, store))
			a.Fail(fakeprovider.Fault{Drop: true, AfterWork: true, Times: 1})
			_, err := s.Token(t.Context(), mailbox)
			wantFault(t, err, mail.BackPressure, codeUnreachable)
			time.Sleep(pressureFirst)
			if _, err = s.Token(t.Context(), mailbox); keeps && err != nil {
				t.Error(err)
			} else if !keeps {
				wantFault(t, err, mail.AccountFault, "AADSTS70000")
			}
		})
	}
}

func TestNoConsentYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := newSource(t, personOptions(a, store))
		_, err := s.Token(t.Context(), mailbox)
		wantFault(t, err, mail.AccountFault, codeNoGrant)
		wantRequests(t, a, "token", 0)
		putGrant(t, s, a.Consent(client, mailbox, scope))
		time.Sleep(lookEvery)
		mustToken(t, s)
	})
}

func TestGrantThatDoesNotSuit(t *testing.T) {
	a := fake(fakeprovider.OAuthOptions{})
	for _, tc := range []struct {
		name   string
		change func(*Options)
		cause  string
	}{
		{"other key", func(o *Options) { o.Sealer, _ = seal.New(make([]byte, 32)) },
			"the stored consent for office is sealed with another key"},
		{"other application", func(o *Options) { o.ClientID = "another" },
			"the consent was given to another application"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := NewMemoryGrants()
			consented(t, a, personOptions(a, store))
			o := personOptions(a, store)
			tc.change(&o)
			_, err := newSource(t, o).Token(t.Context(), mailbox)
			if e := wantFault(t, err, mail.AccountFault, codeNoGrant); e.Cause != tc.cause {
				t.Errorf("cause %q", e.Cause)
			}
		})
	}
}

func TestConfiguredRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		o := personOptions(a, store)
		o.Flow, o.RefreshToken = RefreshToken, NewSecret(a.Consent(client, mailbox, scope))
		mustToken(t, newSource(t, o))
		time.Sleep(2 * time.Hour)
		mustToken(t, newSource(t, o)) // the rotated one of the store, not the used one of the configuration
		wantRequests(t, a, "reuse", 0)

		o.RefreshToken = NewSecret(a.Consent(client, "bob@example.com", scope))
		tok := mustToken(t, newSource(t, o))
		if who, _, _ := a.Valid(tok.AccessToken.Reveal()); who != "bob@example.com" {
			t.Errorf("the newly configured refresh token is not used: %q", who)
		}
	})
}

func TestDropSkipsTheStoredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		first := mustToken(t, s)
		s.Drop(mailbox, first.AccessToken)
		if second := mustToken(t, s); second.AccessToken.Equal(first.AccessToken) {
			t.Error("the refused token came back from the store")
		}
	})
}

func TestKeptAliveWhileUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{RefreshLifetime: 14 * day}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		for week := range 26 {
			before := a.Requests("token")
			time.Sleep(7 * day)
			synctest.Wait()
			if n := a.Requests("token") - before; n < 1 || n > 2 {
				t.Fatalf("week %d: %d requests", week, n)
			}
		}
		cancel()
		wg.Wait()
		mustToken(t, newSource(t, personOptions(a, store)))
	})
}

func TestKeepAliveSurvivesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := fake(fakeprovider.OAuthOptions{}), NewMemoryGrants()
		s := consented(t, a, personOptions(a, store))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		a.Fail(fakeprovider.Fault{Drop: true})
		time.Sleep(61 * day)
		got := s.Expiries(time.Now())
		if len(got) != 1 || got[0].What != "consent" || !got[0].Soon || !got[0].Estimated {
			t.Errorf("unused for 61 of 90 days: %+v", got)
		}
		a.Fail()
		time.Sleep(2 * time.Hour)
		if got := s.Expiries(time.Now()); got[0].Soon {
			t.Errorf("after the refresh: %+v", got)
		}
		cancel()
		wg.Wait()
	})
}

func TestExpiries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		a := confidential(fakeprovider.OAuthOptions{RefreshExpiresIn: 7 * day})
		o := personOptions(a, NewMemoryGrants())
		o.ClientSecret, o.ClientSecretExpires = NewSecret(secret), now.Add(31*day)
		s := consented(t, a, o)
		if err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := func(now time.Time, what ...string) {
			t.Helper()
			got := s.Expiries(now)
			for i, e := range got {
				text := fmt.Sprintf("%s in %v soon=%t estimated=%t", e.What, e.At.Sub(now), e.Soon, e.Estimated)
				if i >= len(what) || text != what[i] || e.Fix == "" {
					t.Errorf("%s", text)
				}
			}
			if len(got) != len(what) {
				t.Errorf("%d, want %d", len(got), len(what))
			}
		}
		want(now, "client secret in 744h0m0s soon=false estimated=false",
			"consent in 2160h0m0s soon=false estimated=true")
		want(now.Add(day), "client secret in 720h0m0s soon=true estimated=false",
			"consent in 2136h0m0s soon=false estimated=true")
		mustToken(t, s) // the server says more than the rule
		want(now, "client secret in 744h0m0s soon=false estimated=false",
			"consent in 168h0m0s soon=true estimated=false")
	})
}
