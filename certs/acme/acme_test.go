package acme

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"postern/internal/testkit"
)

// office is a relay's side: a store, options for the fake CA, and what it was told.
type office struct {
	*fakeCA
	o      Options
	store  *shelf
	log    bytes.Buffer
	mu     sync.Mutex // guards issued
	issued [][]Certificate
}

const fakeName = "relay.example.com"

// newOffice makes one that answers dns-persist-01, for which nothing has to listen.
func newOffice(t *testing.T) *office {
	t.Helper()
	of := &office{fakeCA: newFakeCA(t)}
	of.store = openStore(t, t.TempDir())
	of.o = Options{
		Storage: of.store.ACME(), Directory: of.base + "/dir", Names: []string{fakeName}, Keys: []Key{ECDSA},
		Order: []string{Persist01}, Transport: testkit.Transport(of.fakeCA),
		Logger: slog.New(slog.NewTextHandler(&of.log, nil)),
		Issued: func(all []Certificate) {
			of.mu.Lock()
			defer of.mu.Unlock()
			of.issued = append(of.issued, all)
		},
	}
	return of
}

func (of *office) now() []Certificate {
	of.mu.Lock()
	defer of.mu.Unlock()
	if len(of.issued) == 0 {
		return nil
	}
	return of.issued[len(of.issued)-1]
}

func (of *office) state(t *testing.T) State {
	t.Helper()
	st, err := loadState(t.Context(), &of.o, fakeName)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, test func(t *testing.T, of *office)) {
	synctest.Test(t, func(t *testing.T) { test(t, newOffice(t)) })
}

func TestObtainAndRenew(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.o.Keys = []Key{ECDSA, RSA}
		k, ctx := New(of.o), t.Context()
		k.pass(ctx)
		first := of.now()
		if len(first) != 2 || first[0].Leaf.VerifyHostname(fakeName) != nil {
			t.Fatalf("%+v\n%s", first, of.log.String())
		}
		if _, is := first[1].PrivateKey.(*rsa.PrivateKey); !is || first[1].Key != RSA {
			t.Fatalf("%T", first[1].PrivateKey)
		}
		if n := of.count("/order"); n != 2 || len(of.account) == 0 {
			t.Fatalf("%d orders, account %q", n, of.account)
		}
		for range 10 { // nothing is due
			k.pass(ctx)
		}
		if of.count("/order") != 2 || len(of.issued) != 1 {
			t.Fatalf("%d orders, told %d times", of.count("/order"), len(of.issued))
		}
		time.Sleep(59 * 24 * time.Hour)
		k.pass(ctx)
		if of.count("/order") != 2 {
			t.Fatal("renewed while more than a third of its life was left")
		}
		time.Sleep(2 * 24 * time.Hour)
		k.pass(ctx)
		second := of.now()
		if of.count("/order") != 4 || second[0].Leaf.Equal(first[0].Leaf) || second[1].Leaf.Equal(first[1].Leaf) {
			t.Fatalf("%d orders\n%s", of.count("/order"), of.log.String())
		}
		if st := of.state(t); st.Failures != 0 || st.Error != "" {
			t.Errorf("%+v", st)
		}
	})
}

// What the CA suggests goes before our own reckoning (RFC 9773), and an order names what it replaces.
func TestRenewalInfo(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		start := time.Now().Add(40 * 24 * time.Hour)
		of.window = [2]time.Time{start, start.Add(time.Hour)}
		k, ctx := New(of.o), t.Context()
		k.pass(ctx)
		time.Sleep(39 * 24 * time.Hour)
		k.pass(ctx)
		if of.count("/order") != 1 {
			t.Fatal("renewed before the window")
		}
		of.set(func() { of.window = [2]time.Time{time.Now().Add(-time.Hour), time.Now()} }) // such as a revocation
		time.Sleep(7 * time.Hour)                                                           // it said to ask after six
		k.pass(ctx)
		if of.count("/order") != 2 || of.replaced[0] != "" || of.replaced[1] == "" {
			t.Fatalf("%d orders, replacing %q\n%s", of.count("/order"), of.replaced, of.log.String())
		}
	})
}

// A CA that cannot be reached is asked less and less, and the certificate in use stays.
func TestUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.o.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("connection refused")
		})
		k, ctx := New(of.o), t.Context()
		begin := time.Now()
		for time.Since(begin) < 24*time.Hour {
			time.Sleep(k.pass(ctx))
		}
		st := of.state(t)
		if st.Failures < 24 || st.Failures > 32 || !strings.Contains(st.Error, "connection refused") ||
			!st.Until.IsZero() || st.Since.Sub(begin) > time.Minute {
			t.Errorf("%+v", st)
		}
		of.o.Transport = testkit.Transport(of.fakeCA)
		k.Use(of.o)
		time.Sleep(time.Hour)
		k.pass(ctx)
		if len(of.now()) != 1 || of.state(t).Failures != 0 {
			t.Errorf("%+v", of.state(t))
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A validation that fails is tried fewer than five times in an hour, by however many starts.
func TestRefusedValidation(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.invalid, of.o.Keys = "no such record", []Key{ECDSA, RSA}
		of.o.TXT = func(context.Context, string) ([]string, error) { return []string{"v=spf1"}, nil }
		begin := time.Now()
		for time.Since(begin) < time.Hour {
			New(of.o).pass(t.Context()) // as if it were started anew each minute
			time.Sleep(time.Minute)
		}
		if n := of.count("validated"); n < 2 || n > 4 {
			t.Errorf("%d failed validations in an hour", n)
		}
		st := of.state(t)
		for _, want := range []string{"publish _validation-persist." + fakeName, "accounturi=" + of.account,
			"no such record", "sees another one there: \"v=spf1\""} {
			if !strings.Contains(st.Error, want) {
				t.Errorf("%q lacks %q", st.Error, want)
			}
		}
		if !strings.Contains(of.log.String(), "no certificate from the CA") {
			t.Errorf("log: %s", of.log.String())
		}
		// Other settings are tried at once, and so is what a person asks for.
		before := of.count("validated")
		of.o.Email = "postmaster@example.com"
		New(of.o).pass(t.Context())
		time.Sleep(time.Second)
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now()); err != nil {
			t.Fatal(err)
		}
		New(of.o).pass(t.Context())
		New(of.o).pass(t.Context())
		if got := of.count("validated") - before; got != 2 {
			t.Errorf("%d attempts with other settings and for a person", got)
		}
	})
}

// When the CA says to wait, nothing shortens that: no start, no person, no other settings.
func TestRateLimited(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		limited := true
		of.answer = func(w http.ResponseWriter, path string) bool {
			if path == "/order" && limited {
				w.Header().Set("Retry-After", "100000") // 27.8 hours
				problem(w, 429, "rateLimited", "too many certificates")
				return true
			}
			return false
		}
		k, ctx := New(of.o), t.Context()
		k.pass(ctx)
		st := of.state(t)
		if st.Until.IsZero() || time.Until(st.Next).Round(time.Hour) != 28*time.Hour ||
			!strings.Contains(st.Error, `the CA says "too many certificates"`) {
			t.Fatalf("%+v", st)
		}
		before := of.count("/order")
		if err := Ask(ctx, of.o.Storage, fakeName, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		of.o.Email = "other@example.com"
		for range 27 {
			New(of.o).pass(ctx)
			time.Sleep(time.Hour)
		}
		if n := of.count("/order"); n != before {
			t.Errorf("%d orders more while the CA said to wait", n-before)
		}
		of.set(func() { limited = false })
		time.Sleep(time.Hour)
		New(of.o).pass(ctx)
		if len(of.now()) != 1 {
			t.Errorf("%+v", of.state(t))
		}
	})
}

// A CA cannot have us wait for ever.
func TestLimitIsBounded(t *testing.T) {
	now := time.Now()
	at := &attempt{reached: true, retryAfter: now.Add(1e6 * time.Hour)}
	st := State{}.failed(now, "", at, errors.New("x"))
	if wait := st.Next.Sub(now); wait != maxLimit {
		t.Errorf("it waits %s", wait)
	}
}

func TestWrongNonces(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.badNonces = 3
		New(of.o).pass(t.Context())
		if len(of.now()) != 1 {
			t.Fatalf("%+v", of.state(t))
		}
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		of.set(func() { of.badNonces = 1000 })
		time.Sleep(time.Minute)
		New(of.o).pass(t.Context())
		if st := of.state(t); st.Failures != 1 || !strings.Contains(st.Error, "that nonce is wrong") {
			t.Errorf("%+v", st)
		}
	})
}

// What a CA must not get us to do or believe.
func TestHostileCA(t *testing.T) {
	endless := func(w http.ResponseWriter, path string) bool {
		if path == "/dir" {
			for range 40 {
				_, _ = w.Write(bytes.Repeat([]byte(" "), 64<<10))
			}
		}
		return path == "/dir"
	}
	cases := []struct {
		name, want string
		order      []string
		rude       func(of *office)
	}{
		{"another name", "for which nothing was ordered", []string{Persist01},
			func(of *office) { of.identifier = "$(reboot).example.net" }},
		{"another name for the hook", "for which nothing was ordered", []string{DNS01},
			func(of *office) { of.identifier = "-rf" }},
		{"path as token", "token that is none", []string{HTTP01}, func(of *office) { of.token = "../../etc/passwd" }},
		{"line end in token", "token that is none", []string{DNS01}, func(of *office) { of.token = "a\r\nb" }},
		{"huge answer", "longer than 1048576 octets", []string{Persist01}, func(of *office) { of.answer = endless }},
		{"certificate for another key", "for another key", []string{Persist01},
			func(of *office) { of.otherCSR = true }},
		{"ended certificate", "ended on", []string{Persist01}, func(of *office) { of.lifetime = -time.Second }},
		{"nothing of ours offered", "does not offer dns-persist-01 for relay.example.com, but http-01, dns-01",
			[]string{Persist01}, func(of *office) { of.offered = []string{HTTP01, DNS01} }},
		{"no way to publish", "write [tls.acme.rfc2136]", []string{DNS01}, func(*office) {}},
		{"an address in clear text", "which is not https", []string{Persist01}, func(of *office) {
			of.answer = func(w http.ResponseWriter, path string) bool {
				if path == "/order" {
					w.Header().Set("Location", "http://192.0.2.1/order")
					_, _ = w.Write([]byte(`{"status":"pending","authorizations":["http://192.0.2.1/authz"]}`))
				}
				return path == "/order"
			}
		}},
		{"control characters", `\x1b`, []string{Persist01}, func(of *office) {
			of.answer = func(w http.ResponseWriter, path string) bool {
				if path == "/order" {
					problem(w, 403, "unauthorized", "\x1b[2Jgone\u202e")
				}
				return path == "/order"
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, of *office) {
				of.o.Order = c.order
				of.o.HTTP = "127.0.0.1:0"
				c.rude(of)
				New(of.o).pass(t.Context())
				st := of.state(t)
				if st.Failures != 1 || !strings.Contains(st.Error, c.want) || len(st.Error) > 3*maxError {
					t.Errorf("%+v, want %q", st, c.want)
				}
				if strings.ContainsAny(st.Error, "\x1b\u202e\r\n") {
					t.Errorf("not printable: %q", st.Error)
				}
				if len(of.now()) != 0 {
					t.Error("a certificate is in use")
				}
			})
		})
	}
}

// The first challenge that the CA offers is used.
func TestFallsBack(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		dns := &records{}
		of.o.Order, of.o.DNS, of.offered = []string{Persist01, DNS01}, dns, []string{HTTP01, DNS01}
		New(of.o).pass(t.Context())
		if len(of.now()) != 1 || len(dns.calls) != 2 {
			t.Fatalf("%+v, %q", of.state(t), dns.calls)
		}
		if !strings.HasPrefix(dns.calls[0], "present _acme-challenge."+fakeName+" ") ||
			!strings.HasPrefix(dns.calls[1], "cleanup _acme-challenge."+fakeName+" ") {
			t.Errorf("%q", dns.calls)
		}
	})
}

// records is a DNS that remembers what it was asked.
type records struct{ calls []string }

func (r *records) Present(_ context.Context, name, value string) error {
	r.calls = append(r.calls, "present "+name+" "+value)
	return nil
}

func (*records) Settings() string { return "" }

func (r *records) CleanUp(_ context.Context, name, value string) error {
	r.calls = append(r.calls, "cleanup "+name+" "+value)
	return nil
}

// Two processes that start at once have one account and make one order.
func TestTwoProcesses(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		dir := t.TempDir()
		var wg sync.WaitGroup
		var told [2]int
		var keepers [2]*Keeper
		for i := range 2 {
			o := of.o
			o.Storage = openStore(t, dir).ACME()
			o.Issued = func(all []Certificate) { told[i] = len(all) }
			keepers[i] = New(o)
			wg.Go(func() { keepers[i].pass(t.Context()) })
		}
		wg.Wait()
		for _, k := range keepers { // which the one hears from the other, see Announce
			k.pass(t.Context())
		}
		if of.count("/order") != 1 || of.count("issued") != 1 || told != [2]int{1, 1} {
			t.Errorf("%d orders, %d certificates, told %d", of.count("/order"), of.count("issued"), told)
		}
		if n := of.count("/account"); n != 1 {
			t.Errorf("%d requests for an account", n)
		}
	})
}

// A process that is stopped at any request goes on after a restart, with the same account, and counts no failure.
func TestStoppedInTheMiddle(t *testing.T) {
	for at := 1; ; at++ {
		done := false
		bubble(t, func(t *testing.T, of *office) {
			ctx, stop := context.WithCancel(t.Context())
			n, whole := 0, of.o.Transport
			of.o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if n++; n == at {
					resp, err := whole.RoundTrip(r) // the CA has done it, and nobody hears
					if err == nil {
						resp.Body.Close()
					}
					stop()
					return nil, context.Canceled
				}
				return whole.RoundTrip(r)
			})
			New(of.o).pass(ctx)
			done = n < at
			if st := of.state(t); st.Failures != 0 || !st.Begun.IsZero() {
				t.Errorf("request %d: %+v", at, st)
			}
			account := of.account
			of.o.Transport = whole
			time.Sleep(time.Minute)
			New(of.o).pass(t.Context())
			if len(of.now()) != 1 || account != "" && of.account != account {
				t.Errorf("request %d: %+v, account %q then %q", at, of.state(t), account, of.account)
			}
			stop()
		})
		if done {
			return
		}
	}
}

// A process that dies again and again while it orders does not use up the CA's limits.
func TestCrashLoop(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		var during State
		whole := of.o.Transport
		of.o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/order" {
				during = of.state(t)
			}
			return whole.RoundTrip(r)
		})
		New(of.o).pass(t.Context())
		if during.Begun.IsZero() || !of.state(t).Begun.IsZero() {
			t.Fatalf("during an order %+v, after it %+v", during, of.state(t))
		}
		if err := of.o.Storage.Delete(t.Context(), "certificates"); err != nil {
			t.Fatal(err)
		}
		if err := saveState(t.Context(), &of.o, fakeName, State{Begun: time.Now()}); err != nil { // it died then
			t.Fatal(err)
		}
		for range 50 { // systemd starts it anew after five seconds
			New(of.o).pass(t.Context())
			time.Sleep(5 * time.Second)
		}
		if n := of.count("/order"); n != 1 {
			t.Errorf("%d orders", n)
		}
		time.Sleep(time.Minute)
		New(of.o).pass(t.Context())
		if n := of.count("/order"); n != 2 || len(of.now()) != 1 {
			t.Errorf("%d orders, %+v", n, of.state(t))
		}
	})
}

// A certificate without its key, as a crash between two writes leaves it, is got anew; what is in memory stays so long.
func TestHalfWritten(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		k, ctx := New(of.o), t.Context()
		k.pass(ctx)
		first := of.now()
		key, err := certmagic.StandardKeyGenerator{}.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		other, err := certmagic.PEMEncodePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		where := certmagic.StorageKeys.SitePrivateKey(issuerKey(of.o.Directory, ECDSA), fakeName)
		if err := of.o.Storage.Store(ctx, where, other); err != nil {
			t.Fatal(err)
		}
		of.set(func() { of.invalid = "not now" })
		k.pass(ctx)
		if got := of.now(); len(got) != 1 || !got[0].Leaf.Equal(first[0].Leaf) {
			t.Fatal("the certificate in use is gone")
		}
		if err := New(of.o).Load(ctx); !errors.Is(err, errBadPair) {
			t.Errorf("a start with the half: %v", err)
		}
		of.set(func() { of.invalid = "" })
		time.Sleep(time.Hour)
		k.pass(ctx)
		if got := of.now(); len(got) != 1 || got[0].Leaf.Equal(first[0].Leaf) {
			t.Errorf("not got anew: %+v", of.state(t))
		}
	})
}

// full is a storage that takes nothing.
type full struct{ Storage }

var errFull = errors.New("disk is full")

func (full) Store(context.Context, string, []byte) error { return errFull }

func TestStorageFull(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		k := New(of.o)
		k.pass(t.Context())
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := of.count("/order")
		of.o.Storage = full{of.o.Storage}
		stuck := New(of.o)
		stuck.pass(t.Context())
		if of.count("/order") != before || !strings.Contains(of.log.String(), "disk is full") {
			t.Errorf("it orders what it cannot keep: %d orders\n%s", of.count("/order")-before, of.log.String())
		}
		if len(of.now()) != 1 {
			t.Error("the certificate in use is gone")
		}
	})
}

// fullFor takes what certmagic tries out before an order, and nothing under some keys.
type fullFor struct {
	Storage
	keys []string
}

func (f fullFor) Store(ctx context.Context, key string, value []byte) error {
	for _, prefix := range f.keys {
		if strings.HasPrefix(key, prefix) {
			return errFull
		}
	}
	return f.Storage.Store(ctx, key, value)
}

// A disk that is full when the certificate comes does not make us order one after the other. What cannot be written
// down is not begun.
func TestStorageFullInTheMiddle(t *testing.T) {
	for _, c := range []struct {
		keys        []string
		least, most int
		says        string
	}{
		{[]string{"certificates/"}, 2, 4, "disk is full"},
		{[]string{"certificates/", "postern/state/"}, 0, 0, "the state of a certificate cannot be written"},
	} {
		bubble(t, func(t *testing.T, of *office) {
			of.o.Storage = fullFor{of.o.Storage, c.keys}
			k := New(of.o)
			for begin := time.Now(); time.Since(begin) < time.Hour; {
				time.Sleep(k.pass(t.Context()))
			}
			if n := of.count("/order"); n < c.least || n > c.most {
				t.Errorf("%q: %d orders in an hour", c.keys, n)
			}
			if !strings.Contains(of.log.String(), c.says) {
				t.Errorf("%q: log: %s", c.keys, of.log.String())
			}
		})
	}
}

func TestListAndAsk(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		list := func() []Status {
			t.Helper()
			all, err := List(t.Context(), of.o.Storage, of.o.Directory, []string{fakeName}, []Key{ECDSA, RSA})
			if err != nil || len(all) != 2 {
				t.Fatal(all, err)
			}
			return all
		}
		if all := list(); len(all[0].Chain) != 0 || !all[0].State.Attempted.IsZero() {
			t.Errorf("%+v", all)
		}
		k := New(of.o)
		k.pass(t.Context())
		if all := list(); len(all[0].Chain) != 2 || len(all[1].Chain) != 0 || all[0].State.Attempted.IsZero() {
			t.Errorf("%+v", all)
		}
		time.Sleep(time.Second)
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now()); err != nil {
			t.Fatal(err)
		}
		k.pass(t.Context())
		k.pass(t.Context())
		if all := list(); of.count("/order") != 2 || all[0].State.Attempted.Before(all[0].Asked) {
			t.Errorf("%d orders, %+v", of.count("/order"), all)
		}
	})
}

func TestPersistRecords(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.o.Names = []string{fakeName, "mail.example.com"}
		records, err := PersistRecords(t.Context(), of.o)
		if err != nil || len(records) != 2 {
			t.Fatal(records, err)
		}
		want := Record{"_validation-persist.mail.example.com", "TXT", "ca.example.net; accounturi=" + of.account}
		if records[1] != want || of.account == "" {
			t.Errorf("%+v, want %+v", records[1], want)
		}
		again, err := PersistRecords(t.Context(), of.o)
		if err != nil || again[0] != records[0] {
			t.Error(again, err)
		}
		if !sameRecord("ca.example.net ;  AccountURI="+of.account+"; policy=wildcard", of.account,
			[]string{"ca.example.net"}) || sameRecord("other.example; accounturi="+of.account, of.account,
			[]string{"ca.example.net"}) || sameRecord("ca.example.net; accounturi=x", of.account,
			[]string{"ca.example.net"}) {
			t.Error("sameRecord")
		}
	})
}

// A CA that has lost our account gets the same key again.
func TestAccountForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		k := New(of.o)
		k.pass(t.Context())
		before := of.account
		of.set(func() { of.account = "" })
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		k.pass(t.Context())
		if of.account == "" || of.account == before || of.count("issued") != 2 {
			t.Errorf("%q then %q, %+v", before, of.account, of.state(t))
		}
		if !strings.Contains(of.log.String(), "postern cert dns") {
			t.Error("nobody hears that the record has to change")
		}
	})
}

// Run works until it is told to end, and takes changed settings at once.
func TestRun(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.invalid = "no"
		k := New(of.o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { k.Run(ctx); close(ended) }()
		time.Sleep(5 * time.Second)
		if of.state(t).Failures != 1 {
			t.Fatalf("%+v", of.state(t))
		}
		of.set(func() { of.invalid = "" })
		o := of.o
		o.Email = "postmaster@example.com"
		k.Use(o)
		time.Sleep(5 * time.Second)
		if len(of.now()) != 1 {
			t.Errorf("%+v", of.state(t))
		}
		cancel()
		<-ended
	})
}

func TestIssuerKeys(t *testing.T) {
	for directory, want := range map[string]string{
		"https://acme-v02.api.letsencrypt.org/directory": "acme-v02.api.letsencrypt.org-directory",
		"https://127.0.0.1:14000/dir":                    "127.0.0.1:14000-dir",
	} {
		if got := issuerKey(directory, ECDSA); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := issuerKey(directory, RSA); got != want+"-rsa" {
			t.Errorf("%q", got)
		}
	}
}
