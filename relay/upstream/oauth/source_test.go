package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
)

func TestOneRequestForAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Delay: 3 * time.Second, Times: 1})
		s := newSource(t, appOptions(a))
		tokens := make([]Token, 50)
		var wg sync.WaitGroup
		for i := range tokens {
			wg.Go(func() {
				tok, err := s.Token(t.Context(), fmt.Sprintf("user%d@example.com", i))
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
				tokens[i] = tok
			})
		}
		wg.Wait()
		wantRequests(t, a, "token", 1)
		for i, tok := range tokens {
			if !tok.AccessToken.Equal(tokens[0].AccessToken) {
				t.Fatalf("caller %d has another token", i)
			}
		}
		identity, scopes, ok := a.Valid(tokens[0].AccessToken.Reveal())
		if !ok || identity != fakeprovider.AnyMailbox || scopes[0] != "https://outlook.office365.com/.default" {
			t.Errorf("token is for %q %q, %t", identity, scopes, ok)
		}
	})
}

func TestCallerThatGoesTakesNobodyAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Delay: 10 * time.Second, Times: 1})
		s := newSource(t, appOptions(a))
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Token(hurried, mailbox)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("hurried caller: %v", err)
			}
			wantFault(t, err, mail.BackPressure, codeStopped)
		})
		synctest.Wait()
		mustToken(t, s)
		wg.Wait()
		wantRequests(t, a, "token", 1)
	})
}

func TestFetchedEarlyWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		s := newSource(t, appOptions(a))
		first := mustToken(t, s)
		time.Sleep(55*time.Minute - time.Second)
		mustToken(t, s)
		synctest.Wait()
		wantRequests(t, a, "token", 1) // five minutes before the end, without jitter
		time.Sleep(time.Second)

		a.Fail(fakeprovider.Fault{Delay: 20 * time.Second})
		before := time.Now()
		if tok := mustToken(t, s); !tok.AccessToken.Equal(first.AccessToken) || time.Since(before) != 0 {
			t.Fatal("a caller with a valid token waited for the next")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if tok := mustToken(t, s); tok.AccessToken.Equal(first.AccessToken) {
			t.Fatal("the early token is not used")
		}
		wantRequests(t, a, "token", 2)
	})
}

func TestJitterSpreadsEarlyFetches(t *testing.T) {
	now := time.Unix(0, 0)
	tok := Token{NewSecret("x"), now.Add(time.Hour)}
	if got := refreshAt(tok, now, 0); got != now.Add(55*time.Minute) {
		t.Errorf("latest: %v", got)
	}
	if got := refreshAt(tok, now, 0.999); got.After(now.Add(50*time.Minute+time.Second)) ||
		got.Before(now.Add(50*time.Minute)) {
		t.Errorf("earliest: %v", got)
	}
	short := Token{NewSecret("x"), now.Add(4 * time.Minute)}
	if got := refreshAt(short, now, 0.5); !got.After(now.Add(3 * time.Minute)) {
		t.Errorf("a short life is spent on fetching: %v", got)
	}
}

func TestLifeThatIsNotSaidOrNotBelieved(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    fakeprovider.OAuthOptions
		want time.Duration
	}{
		{"no expires_in", fakeprovider.OAuthOptions{NoExpiresIn: true}, time.Hour},
		{"a second", fakeprovider.OAuthOptions{Lifetime: time.Second}, minLife},
		{"a year", fakeprovider.OAuthOptions{Lifetime: 365 * day}, maxLife},
		{"ten minutes", fakeprovider.OAuthOptions{Lifetime: 10 * time.Minute}, 10 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource(t, appOptions(confidential(tc.o)))
				if got := time.Until(mustToken(t, s).Expiry); got != tc.want {
					t.Errorf("life %v, want %v", got, tc.want)
				}
			})
		})
	}
}

// A server that is down is asked seldom, never blocks who has a token, and does not stop anybody.
func TestEndpointDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		s := newSource(t, appOptions(a))
		first := mustToken(t, s)
		a.Fail(fakeprovider.Fault{Drop: true})
		time.Sleep(59 * time.Minute)
		if tok := mustToken(t, s); !tok.AccessToken.Equal(first.AccessToken) {
			t.Fatal("another token out of nowhere")
		}
		time.Sleep(time.Minute)
		asked, end := a.Requests("token"), time.Now().Add(24*time.Hour)
		for time.Now().Before(end) {
			before := time.Now()
			_, err := s.Token(t.Context(), mailbox)
			e := wantFault(t, err, mail.BackPressure, codeUnreachable)
			if time.Since(before) > timeout {
				t.Fatalf("blocked for %v", time.Since(before))
			}
			if !e.Retry.After(time.Now()) || e.Retry.After(time.Now().Add(6*time.Minute)) {
				t.Fatalf("retry in %v", time.Until(e.Retry))
			}
			time.Sleep(time.Second)
		}
		if n := a.Requests("token") - asked; n > 24*12+10 || n < 100 {
			t.Errorf("%d requests in a day, by a caller each second", n)
		}
		a.Fail()
		time.Sleep(6 * time.Minute)
		mustToken(t, s)
	})
}

func TestSlowEndpointIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Delay: time.Hour})
		s := newSource(t, appOptions(a))
		before := time.Now()
		_, err := s.Token(t.Context(), mailbox)
		if e := new(Error); !errors.As(err, &e) || e.Class != mail.BackPressure ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
		if got := time.Since(before); got != timeout {
			t.Errorf("blocked for %v, want %v", got, timeout)
		}
	})
}

func TestAnswersThatPass(t *testing.T) {
	for _, tc := range []struct {
		fault fakeprovider.Fault
		code  string
		retry time.Duration
	}{
		{fakeprovider.Fault{Status: 500, Body: "<html>oops"}, "HTTP 500", pressureFirst},
		{fakeprovider.Fault{Status: 503, RetryAfter: 120}, "HTTP 503", 2 * time.Minute},
		{fakeprovider.Fault{Status: 429, RetryAfter: 86400 * 30}, "HTTP 429", maxRetryAfter},
		{fakeprovider.Fault{Status: 403, Body: "blocked by proxy"}, "HTTP 403", pressureFirst},
		{fakeprovider.Fault{Status: 200, Body: "<html>hotel wifi, please log in"}, codeGarbled, pressureFirst},
		{fakeprovider.Fault{Status: 200, Body: `{"token_type":"Bearer"}`}, codeGarbled, pressureFirst},
		{fakeprovider.Fault{Status: 200, Body: `{"access_token":"a\u0001b","token_type":"Bearer"}`}, codeGarbled,
			pressureFirst},
		{fakeprovider.Fault{Status: 200, Body: `{"access_token":"ab","token_type":"mac"}`}, codeGarbled, pressureFirst},
		{fakeprovider.Fault{Status: 200, Body: `{"access_token":"` + strings.Repeat("a", maxToken+1) + `"}`},
			codeGarbled, pressureFirst},
		{fakeprovider.Fault{Status: 200, Body: strings.Repeat(" ", maxResponse+1)}, codeUnreachable, pressureFirst},
		{fakeprovider.Fault{Status: 400, Error: "temporarily_unavailable"}, "temporarily_unavailable", pressureFirst},
		{fakeprovider.Fault{AADSTS: 90033, Error: "invalid_request", Description: "A transient error has occurred."},
			"AADSTS90033", pressureFirst},
	} {
		t.Run(tc.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := confidential(fakeprovider.OAuthOptions{})
				a.Fail(tc.fault)
				s := newSource(t, appOptions(a))
				_, err := s.Token(t.Context(), mailbox)
				e := wantFault(t, err, mail.BackPressure, tc.code)
				if got := time.Until(e.Retry); got != tc.retry {
					t.Errorf("retry in %v, want %v", got, tc.retry)
				}
				if _, again := s.Token(t.Context(), mailbox); again.Error() != err.Error() {
					t.Errorf("second caller: %v", again)
				}
				wantRequests(t, a, "token", 1)
				a.Fail()
				time.Sleep(tc.retry)
				mustToken(t, s)
			})
		})
	}
}

// After a failure one goes ahead; the others are not sent after him.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeprovider.NewOAuth(fakeprovider.OAuthOptions{})
		a.AddAccount(fakeprovider.Account{Email: "relay@project.iam.gserviceaccount.example",
			Key: &testKey().PublicKey})
		s := newSource(t, Options{Upstream: "g", Provider: Google, Flow: ServiceAccount,
			ServiceAccount: serviceAccountFile(t), Transport: testkit.Transport(a),
			Jitter: func() float64 { return 0 }})
		a.Fail(fakeprovider.Fault{Status: 503})
		if _, err := s.Token(t.Context(), mailbox); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(pressureFirst)
		a.Fail(fakeprovider.Fault{Delay: 10 * time.Second})
		var wg sync.WaitGroup
		var mu sync.Mutex
		good := 0
		for i := range 20 {
			wg.Go(func() {
				if _, err := s.Token(t.Context(), fmt.Sprintf("u%d@example.com", i)); err == nil {
					mu.Lock()
					defer mu.Unlock()
					good++
				}
			})
		}
		wg.Wait()
		wantRequests(t, a, "token", 2)
		if good != 1 {
			t.Errorf("%d callers got a token from one probe of another's", good)
		}
		a.Fail()
		for i := range 20 {
			if _, err := s.Token(t.Context(), fmt.Sprintf("u%d@example.com", i)); err != nil {
				t.Errorf("after the probe: %v", err)
			}
		}
		wantRequests(t, a, "token", 21)
	})
}

// A server that refuses one account works: the others need not go one by one.
func TestFaultEndsPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeprovider.NewOAuth(fakeprovider.OAuthOptions{})
		a.AddAccount(fakeprovider.Account{Email: "relay@project.iam.gserviceaccount.example", Key: &testKey().PublicKey,
			Mailboxes: []string{"ann@example.com", "bob@example.com"}})
		s := newSource(t, Options{Upstream: "g", Provider: Google, Flow: ServiceAccount,
			ServiceAccount: serviceAccountFile(t), Transport: testkit.Transport(a)})
		a.Fail(fakeprovider.Fault{Status: 503, Times: 1}, fakeprovider.Fault{Delay: time.Second})
		if _, err := s.Token(t.Context(), "ann@example.com"); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(2 * pressureFirst)
		_, err := s.Token(t.Context(), "sales@example.com")
		wantFault(t, err, mail.AccountFault, "invalid_grant")
		var wg sync.WaitGroup
		for _, who := range []string{"ann@example.com", "bob@example.com"} {
			wg.Go(func() {
				if _, err := s.Token(t.Context(), who); err != nil {
					t.Errorf("%s: %v", who, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestFailuresOfOneMomentCountOnce(t *testing.T) {
	var p pressure
	now := time.Unix(0, 0)
	for range 10 {
		p.add(&Error{}, now, now.Add(time.Second), 0)
	}
	if p.times != 1 || p.err.Retry != now.Add(time.Second+pressureFirst) {
		t.Errorf("%d times, retry %v", p.times, p.err.Retry)
	}
	p.add(&Error{}, now.Add(time.Minute), now.Add(time.Minute), 0)
	if p.times != 2 || p.err.Retry != now.Add(time.Minute+2*pressureFirst) {
		t.Errorf("%d times, retry %v", p.times, p.err.Retry)
	}
}

func TestAccountFaultBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		log := new(testkit.Log)
		o := appOptions(a)
		o.ClientSecret, o.Logger = NewSecret("wrong-secret-value"), textLogger(log)
		s := newSource(t, o)
		_, err := s.Token(t.Context(), mailbox)
		e := wantFault(t, err, mail.AccountFault, "AADSTS7000215")
		if e.Temporary() || !strings.Contains(e.Fix, client) {
			t.Errorf("fix %q", e.Fix)
		}
		end := time.Now().Add(24 * time.Hour)
		for time.Now().Before(end) {
			_, err := s.Token(t.Context(), mailbox)
			wantFault(t, err, mail.AccountFault, "AADSTS7000215")
			time.Sleep(time.Second)
		}
		if n := a.Requests("token"); n > 4*24+5 || n < 80 {
			t.Errorf("%d requests in a day", n)
		}
		if strings.Contains(log.String()+fmt.Sprintf("%+v %#v", err, e), "wrong-secret-value") {
			t.Error("the secret is in the log or the error")
		}
		for _, want := range []string{"upstream=office", "class=account-fault", "code=AADSTS7000215"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %s", want)
			}
		}
		a.AddClient(fakeprovider.Client{ID: client, Secret: "wrong-secret-value"})
		time.Sleep(faultLast)
		mustToken(t, s)
	})
}

func TestForgetAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{AADSTS: 7000222, Error: "invalid_client", Times: 1})
		s := newSource(t, appOptions(a))
		_, err := s.Token(t.Context(), mailbox)
		wantFault(t, err, mail.AccountFault, "AADSTS7000222")
		s.Forget()
		mustToken(t, s)
	})
}

func TestDropFetchesAnewOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		s := newSource(t, appOptions(a))
		first := mustToken(t, s).AccessToken
		for i := range 50 { // all connections are refused with the same token
			if !s.Drop(fmt.Sprintf("u%d@example.com", i), first) {
				t.Fatalf("caller %d: not worth another try", i)
			}
		}
		second := mustToken(t, s).AccessToken
		if second.Equal(first) {
			t.Fatal("the refused token again")
		}
		wantRequests(t, a, "token", 2)
		if !s.Drop(mailbox, first) {
			t.Error("a late refusal of the old token says nothing about the new one")
		}
		if s.Drop(mailbox, second) {
			t.Error("a fresh token that is refused is not the token's fault")
		}
		if tok := mustToken(t, s); !tok.AccessToken.Equal(second) {
			t.Error("one mailbox took the token from all")
		}
		wantRequests(t, a, "token", 2)
		time.Sleep(trust)
		if !s.Drop(mailbox, second) {
			t.Error("an old token may be what is wrong")
		}
		mustToken(t, s)
		wantRequests(t, a, "token", 3)
	})
}

func TestServiceAccountIsPerMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeprovider.NewOAuth(fakeprovider.OAuthOptions{})
		a.AddAccount(fakeprovider.Account{Email: "relay@project.iam.gserviceaccount.example", Key: &testKey().PublicKey,
			Mailboxes: []string{"ann@example.com", "bob@example.com"}})
		s := newSource(t, Options{Upstream: "g", Provider: Google, Flow: ServiceAccount,
			ServiceAccount: serviceAccountFile(t), Transport: testkit.Transport(a)})
		for _, who := range []string{"ann@example.com", "bob@example.com", "ann@example.com"} {
			tok, err := s.Token(t.Context(), who)
			if err != nil {
				t.Fatal(err)
			}
			identity, scopes, ok := a.Valid(tok.AccessToken.Reveal())
			if !ok || identity != who || len(scopes) != 1 || scopes[0] != "https://mail.google.com/" {
				t.Errorf("token of %s is for %q %q", who, identity, scopes)
			}
		}
		wantRequests(t, a, "token:"+jwtBearer, 2)
		// A group is no mailbox. That is its trouble, and nobody else's.
		_, err := s.Token(t.Context(), "sales@example.com")
		wantFault(t, err, mail.AccountFault, "invalid_grant")
		if _, err := s.Token(t.Context(), "bob@example.com"); err != nil {
			t.Error(err)
		}
		_, err = s.Token(t.Context(), "")
		wantFault(t, err, mail.AccountFault, "no_subject")
	})
}

// What an outsider can make us remember is bounded; what is forgotten costs a request and no more.
func TestIdentitiesAreBounded(t *testing.T) {
	a := fakeprovider.NewOAuth(fakeprovider.OAuthOptions{})
	s := newSource(t, Options{Upstream: "g", Provider: Google, Flow: ServiceAccount,
		ServiceAccount: serviceAccountFile(t), Transport: testkit.Transport(a)})
	for i := range maxIdentities + 100 {
		s.Drop(fmt.Sprint(i), Secret{})
	}
	if n := s.entries.Len(); n != maxIdentities {
		t.Errorf("%d identities", n)
	}
}

func TestCertificate(t *testing.T) {
	for _, algorithm := range []string{algPS256, algRS256} {
		t.Run("algorithm "+algorithm, func(t *testing.T) {
			pair, cert := pemPair(t, time.Now().Add(20*day))
			a := fake(fakeprovider.OAuthOptions{})
			a.AddClient(fakeprovider.Client{ID: client, Certificate: cert})
			o := appOptions(a)
			o.ClientSecret, o.Certificate = Secret{}, pair
			s := newSource(t, o)
			s.p.algorithm = algorithm
			mustToken(t, s)
			s.Forget()
			mustToken(t, s) // another jti
			if got := s.Expiries(time.Now()); len(got) != 1 || got[0].What != "certificate" || !got[0].Soon ||
				!got[0].At.Equal(cert.NotAfter) {
				t.Errorf("expiries %+v", got)
			}
		})
	}
	t.Run("another certificate is registered", func(t *testing.T) {
		pair, _ := pemPair(t, time.Now().Add(day))
		_, other := pemPair(t, time.Now().Add(2*day))
		a := fake(fakeprovider.OAuthOptions{})
		a.AddClient(fakeprovider.Client{ID: client, Certificate: other})
		o := appOptions(a)
		o.ClientSecret, o.Certificate = Secret{}, pair
		_, err := newSource(t, o).Token(t.Context(), mailbox)
		wantFault(t, err, mail.AccountFault, "AADSTS700027")
	})
	t.Run("over", func(t *testing.T) {
		pair, cert := pemPair(t, time.Now().Add(-time.Hour))
		a := fake(fakeprovider.OAuthOptions{})
		a.AddClient(fakeprovider.Client{ID: client, Certificate: cert})
		o := appOptions(a)
		o.ClientSecret, o.Certificate = Secret{}, pair
		_, err := newSource(t, o).Token(t.Context(), mailbox)
		wantFault(t, err, mail.AccountFault, "certificate_expired")
		wantRequests(t, a, "token", 0)
	})
}

// Secrets go to the token endpoint and nowhere else.
func TestRedirectIsNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 307, 308} {
		elsewhere := confidential(fakeprovider.OAuthOptions{})
		there, err := elsewhere.Listen(nil)
		if err != nil {
			t.Fatal(err)
		}
		a := confidential(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Status: status, Body: there.URL + "/token"})
		here, err := a.Listen(nil)
		if err != nil {
			t.Fatal(err)
		}
		o := appOptions(a)
		o.Transport, o.TokenURL = nil, here.URL+"/token"
		_, err = newSource(t, o).Token(t.Context(), mailbox)
		wantFault(t, err, mail.AccountFault, fmt.Sprintf("HTTP %d", status))
		wantRequests(t, elsewhere, "token", 0)
		if err := errors.Join(here.Close(), there.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseEndsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := confidential(fakeprovider.OAuthOptions{})
		a.Fail(fakeprovider.Fault{Delay: time.Hour})
		s := newSource(t, appOptions(a))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Token(t.Context(), mailbox)
			wantFault(t, err, mail.BackPressure, codeStopped)
		})
		synctest.Wait()
		before := time.Now()
		s.Close()
		wg.Wait()
		if time.Since(before) != 0 {
			t.Errorf("closed after %v", time.Since(before))
		}
		_, err := s.Token(t.Context(), mailbox)
		wantFault(t, err, mail.BackPressure, codeStopped)
	})
}

// A server that is not known gets the secret in the header (RFC 6749 §2.3.1), a known one in the body.
func TestSecretGoesInTheHeader(t *testing.T) {
	for provider, want := range map[string]bool{"": true, Microsoft: false} {
		var got *http.Request
		a := confidential(fakeprovider.OAuthOptions{})
		spy := roundTrip(func(r *http.Request) (*http.Response, error) {
			got = r
			return testkit.Transport(a).RoundTrip(r)
		})
		s := newSource(t, Options{Upstream: "o", Provider: provider, Flow: ClientCredentials, ClientID: client,
			ClientSecret: NewSecret(secret),
			TokenURL:     "https://id.example.com/token", Scopes: []string{"x/.default"}, Transport: spy})
		mustToken(t, s)
		if _, _, basic := got.BasicAuth(); basic != want {
			t.Errorf("provider %q: basic %t", provider, basic)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
