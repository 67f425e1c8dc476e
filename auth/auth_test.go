package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
)

// TestEveryRefusalCostsOneHash is the equality of time, as far as it can be seen in structure: the
// expensive step is taken once whatever is wrong.
func TestEveryRefusalCostsOneHash(t *testing.T) {
	for _, c := range []struct {
		name, login, password string
		hashes                int64
		reason                error
	}{
		{"unknown login", "nobody", "right", 1, ErrUnknownLogin},
		{"wrong chosen password", "anna", "wrong", 1, ErrWrongPassword},
		{"locked login, right password", "locked", "right", 1, ErrLocked},
		{"locked login, wrong password", "locked", "wrong", 1, ErrLocked},
		{"wrong generated password", "printer", "wrong", 1, ErrWrongPassword},
		{"locked device, right password", "lockedprinter", "k3m9p-right", 1, ErrLocked},
		{"locked device, wrong password", "lockedprinter", "wrong", 1, ErrLocked},
		{"right password from elsewhere", "office", "right", 1, ErrNetwork},
		{"wrong password from elsewhere", "office", "wrong", 1, ErrWrongPassword},
		{"password of 256 octets", "anna", long(256), 1, ErrWrongPassword},
		// What nobody can have is refused before hashing and says nothing about a login.
		{"password of 257 octets", "anna", long(257), 0, ErrMalformed},
		{"empty password", "anna", "", 0, ErrMalformed},
		{"login of 257 octets", long(257), "right", 0, ErrMalformed},
		{"empty login", "", "right", 0, ErrMalformed},
		{"NUL in the login", "an\x00na", "right", 0, ErrMalformed},
		{"NUL in the password", "anna", "ri\x00ght", 0, ErrMalformed},
		{"invalid UTF-8", "anna\xff", "right", 0, ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{})
			err := r.try(c.login, c.password, there)
			wantRefusal(t, err, 535, c.reason)
			if reply, _ := mail.ReplyFor(err); reply != replyRefused {
				t.Errorf("reply = %q, want the one text %q", reply, replyRefused)
			}
			if n := r.hashes.Load(); n != c.hashes {
				t.Errorf("%d hashes, want %d", n, c.hashes)
			}
		})
	}
}

func TestRightPasswords(t *testing.T) {
	for _, c := range []struct {
		name, login, password string
		hashes                int64
	}{
		{"chosen", "anna", "right", 1},
		{"login in capitals", "ANNA", "right", 1},
		{"generated", "printer", "k3m9p-right", 0},
		{"generated, typed on a panel", "Printer", "K3M9P RIGHT", 0},
		{"inside the networks", "office", "right", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{})
			id, err := r.Authenticate(t.Context(), c.login, c.password, here)
			wantOK(t, err)
			if id.Login != strings.ToLower(c.login) {
				t.Errorf("login = %q", id.Login)
			}
			if n := r.hashes.Load(); n != c.hashes {
				t.Errorf("%d hashes, want %d", n, c.hashes)
			}
			wantOK(t, r.try(c.login, c.password, here))
			if n := r.hashes.Load(); n != c.hashes {
				t.Errorf("%d hashes after the second time, want %d: it is remembered", n, c.hashes)
			}
		})
	}
}

func TestNetworksAreJudgedForEveryClient(t *testing.T) {
	r := newRig(t, Options{})
	wantOK(t, r.try("office", "right", here))
	err := r.try("office", "right", there) // remembered, and still not from there
	wantRefusal(t, err, 535, ErrNetwork)
	if !strings.Contains(err.Error(), "198.51.100.7") || !strings.Contains(err.Error(), "192.0.2.0/24") {
		t.Errorf("the log would not say where from and where it may: %v", err)
	}
}

func TestCacheRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{CacheTTL: 10 * minute})
		wantOK(t, r.try("anna", "right", here))
		time.Sleep(10*minute - time.Second)
		wantOK(t, r.try("anna", "right", here))
		if n := r.hashes.Load(); n != 1 {
			t.Fatalf("%d hashes within the time to live, want 1", n)
		}
		time.Sleep(2 * time.Second)
		wantOK(t, r.try("anna", "right", there))
		if n := r.hashes.Load(); n != 2 {
			t.Errorf("%d hashes after it, want 2", n)
		}
	})
}

// TestOldPrinter is a device with an old password: it costs one hash a minute however often it tries,
// and never locks anybody out.
func TestOldPrinter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Lockout: Lockout{Failures: 3, Window: 10 * minute, Duration: 15 * minute}})
		for range 60 * 5 {
			wantRefusal(t, r.try("anna", "old password", here), 535, ErrWrongPassword)
			time.Sleep(time.Second)
		}
		if n := r.hashes.Load(); n != 5 {
			t.Errorf("%d hashes in five minutes, want 5", n)
		}
		wantOK(t, r.try("anna", "right", here))
		wantOK(t, r.try("anna", "right", there))
	})
}

func TestForget(t *testing.T) {
	r := newRig(t, Options{})
	wantOK(t, r.try("anna", "right", here))
	wantRefusal(t, r.try("anna", "newer", here), 535, ErrWrongPassword)
	r.users.put(User{Login: "anna", Hash: fakeChosen("newer")})

	r.Forget("printer")
	wantOK(t, r.try("anna", "right", here)) // nobody told us
	wantRefusal(t, r.try("anna", "newer", here), 535, ErrWrongPassword)

	r.Forget("Anna")
	wantRefusal(t, r.try("anna", "right", here), 535, ErrWrongPassword)
	wantOK(t, r.try("anna", "newer", here))

	r.users.put(User{Login: "anna", Hash: fakeChosen("newest")})
	r.Forget()
	wantRefusal(t, r.try("anna", "newer", here), 535, ErrWrongPassword)
	wantOK(t, r.try("anna", "newest", here))
}

// TestForgetDuringVerification: a password that is changed while it is being verified must not be
// remembered as right.
func TestForgetDuringVerification(t *testing.T) {
	r := newRig(t, Options{})
	r.during = func() {
		r.during = nil
		r.users.put(User{Login: "anna", Hash: fakeChosen("newer")})
		r.Forget("anna")
	}
	wantOK(t, r.try("anna", "right", here)) // it began before the change
	wantRefusal(t, r.try("anna", "right", here), 535, ErrWrongPassword)
}

func TestCacheIsBounded(t *testing.T) {
	r := newRig(t, Options{CacheSize: 10})
	for i := range 100 {
		login := fmt.Sprintf("user%d", i)
		r.users.put(User{Login: login, Hash: fakeChosen("right")})
		wantOK(t, r.try(login, "right", here))
		r.try("anna", fmt.Sprintf("wrong%d", i), here)
	}
	if n := r.Stats().Cached; n != 10 {
		t.Errorf("%d verified credentials are held, want 10", n)
	}
	if n := r.cache.wrong.Len(); n != 10 {
		t.Errorf("%d refused credentials are held, want 10", n)
	}
}

// TestWrongOnesDoNotDisplaceRightOnes: a flood of guesses leaves the cache of the others alone.
func TestWrongOnesDoNotDisplaceRightOnes(t *testing.T) {
	r := newRig(t, Options{CacheSize: 10})
	wantOK(t, r.try("anna", "right", here))
	for i := range 100 {
		r.try("nobody", fmt.Sprintf("guess%d", i), there)
	}
	before := r.hashes.Load()
	wantOK(t, r.try("anna", "right", here))
	if r.hashes.Load() != before {
		t.Error("the verified credential was displaced")
	}
}

func TestSourceDown(t *testing.T) {
	r := newRig(t, Options{Lockout: Lockout{Failures: 1, Window: minute, Duration: minute}})
	wantOK(t, r.try("printer", "k3m9p-right", here))
	broken := errors.New("disk on fire")
	r.users.fail(broken)
	for range 5 {
		wantRefusal(t, r.try("anna", "right", there), 454, broken)
	}
	if reply, _ := mail.ReplyFor(r.try("anna", "right", there)); strings.Contains(reply.Text, "fire") {
		t.Errorf("the reply tells outsiders: %q", reply)
	}
	wantOK(t, r.try("printer", "k3m9p-right", here)) // remembered: works on
	r.users.fail(nil)
	wantOK(t, r.try("anna", "right", there)) // not remembered, not counted
	if s := r.Stats(); s.Down != 6 || s.Lockouts != 0 {
		t.Errorf("stats = %+v", s)
	}
}

func TestDamagedHashIsOurTrouble(t *testing.T) {
	r := newRig(t, Options{})
	for _, hash := range []Secret{"", "$argon2id$", "$postern-hmac-sha256$!", "$1$old$crypt"} {
		r.users.put(User{Login: "broken", Hash: hash})
		wantRefusal(t, r.try("broken", "right", here), 454, errHash)
	}
}

// TestLooseStore: a store that finds users without regard to case must not give one login the password
// of another.
func TestLooseStore(t *testing.T) {
	r := newRig(t, Options{})
	r.users.m["ánna"] = User{Login: "anna", Hash: fakeChosen("right")}
	wantRefusal(t, r.try("ánna", "right", here), 535, ErrUnknownLogin)
}

// scripted is a source that answers from a table.
type scripted struct {
	name  string
	table map[string]error
	asked []string
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Verify(_ context.Context, login, _ string) (Identity, error) {
	s.asked = append(s.asked, login)
	err, known := s.table[login]
	if !known {
		return Identity{}, ErrUnknownLogin
	}
	return Identity{Groups: []string{s.name}}, err
}

func TestSourcesInOrder(t *testing.T) {
	down := errors.New("no route to host")
	first := &scripted{name: "first", table: map[string]error{"both": nil, "wrong": ErrWrongPassword,
		"locked": ErrLocked, "down": down}}
	second := &scripted{name: "second", table: map[string]error{"both": nil, "only": nil, "wrong": nil, "locked": nil,
		"down": nil}}
	r := newRig(t, Options{Sources: []Source{first, second}})
	for _, c := range []struct {
		login  string
		group  string
		code   int
		reason error
	}{
		{"both", "first", 0, nil},
		{"only", "second", 0, nil},
		{"wrong", "", 535, ErrWrongPassword}, // the first that knows it decides
		{"locked", "", 535, ErrLocked},
		{"down", "", 454, down}, // it may be the one that has locked it
		{"neither", "", 535, ErrUnknownLogin},
	} {
		id, err := r.Authenticate(t.Context(), c.login, "pw", here)
		if c.code != 0 {
			wantRefusal(t, err, c.code, c.reason)
			continue
		}
		wantOK(t, err)
		if id.Login != c.login || len(id.Groups) != 1 || id.Groups[0] != c.group {
			t.Errorf("%s: %+v", c.login, id)
		}
	}
	if n := r.hashes.Load(); n != 1 {
		t.Errorf("%d hashes, want 1: the dummy of the login that nobody knows", n)
	}
}

func TestNoSources(t *testing.T) {
	r := newRig(t, Options{Sources: []Source{}})
	wantRefusal(t, r.try("anna", "right", here), 535, ErrUnknownLogin)
}

func TestLookup(t *testing.T) {
	r := newRig(t, Options{})
	id, err := r.Lookup(t.Context(), "Anna")
	wantOK(t, err)
	if id.Login != "anna" || len(id.Senders) != 1 {
		t.Errorf("identity = %+v", id)
	}
	_, err = r.Lookup(t.Context(), "nobody")
	wantRefusal(t, err, 451, ErrUnknownLogin)
	_, err = r.Lookup(t.Context(), "locked")
	wantRefusal(t, err, 550, ErrLocked)
	if !strings.Contains(err.Error(), "sent too much") {
		t.Errorf("the log would not say why: %v", err)
	}
	r.users.fail(errors.New("down"))
	_, err = r.Lookup(t.Context(), "anna")
	wantRefusal(t, err, 451, nil)
}

func TestHashingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const parallel, clients = 2, 400
		r := newRig(t, Options{HashParallel: parallel, HashWait: 3 * time.Second})
		var running, most atomic.Int64
		release := make(chan struct{})
		r.during = func() {
			most.Store(max(most.Load(), running.Add(1)))
			<-release
			running.Add(-1)
		}
		var wg sync.WaitGroup
		var busy atomic.Int64
		for i := range clients {
			wg.Go(func() {
				err := r.try("anna", fmt.Sprintf("guess%d", i), from(i))
				if reply, _ := mail.ReplyFor(err); reply.Code == 454 {
					busy.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := running.Load(); n != parallel {
			t.Errorf("%d hash at once, want %d", n, parallel)
		}
		waiting := int64(parallel * queuePerSlot)
		if n := int64(r.Stats().Waiting); n != waiting {
			t.Errorf("%d wait, want %d", n, waiting)
		}
		if n := busy.Load(); n != clients-parallel-waiting {
			t.Errorf("%d were sent away at once, want %d", n, clients-parallel-waiting)
		}
		time.Sleep(4 * time.Second)
		if n := busy.Load(); n != clients-parallel {
			t.Errorf("%d were sent away after the longest wait, want %d", n, clients-parallel)
		}
		close(release)
		wg.Wait()
		if most.Load() != parallel || r.hashes.Load() != parallel {
			t.Errorf("most at once %d, hashes %d, want %d", most.Load(), r.hashes.Load(), parallel)
		}
		r.during = nil
		wantOK(t, r.try("anna", "right", here)) // places were given back
	})
}

// patient is a source that answers when released.
type patient struct {
	release chan struct{}
	asked   atomic.Int64
}

func (*patient) Name() string { return "patient" }

func (p *patient) Verify(ctx context.Context, _, _ string) (Identity, error) {
	p.asked.Add(1)
	select {
	case <-p.release:
		return Identity{}, nil
	case <-ctx.Done():
		return Identity{}, ctx.Err()
	}
}

// TestSameCredentialTogether: a client that opens many connections is verified once, and the first of
// them that goes away does not take the others with it.
func TestSameCredentialTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &patient{release: make(chan struct{})}
		r := newRig(t, Options{Sources: []Source{source}})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.Authenticate(ctx, "anna", "right", here) })
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				if err := r.try("anna", "right", here); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(source.release)
		wg.Wait()
		if n := source.asked.Load(); n != 1 {
			t.Errorf("the source was asked %d times, want 1", n)
		}
	})
}

// TestSourceThatHangs: a source that never answers holds a client up for a bounded time.
func TestSourceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Sources: []Source{&patient{}}})
		began := time.Now()
		wantRefusal(t, r.try("anna", "right", here), 454, context.DeadlineExceeded)
		if took := time.Since(began); took > verifyTimeout+time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestCachedCredentialNeedsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{HashParallel: 1})
		wantOK(t, r.try("anna", "right", here))
		release := make(chan struct{})
		r.during = func() { <-release }
		var wg sync.WaitGroup
		wg.Go(func() { r.try("nobody", "guess", there) })
		synctest.Wait() // all places are taken
		wantOK(t, r.try("anna", "right", here))
		wantOK(t, r.try("printer", "k3m9p-right", here))
		close(release)
		wg.Wait()
	})
}

// TestNoSecretIsPrinted logs and formats all that passes by while passwords are right and wrong.
func TestNoSecretIsPrinted(t *testing.T) {
	const secret = "CorrectHorseBattery"
	var out bytes.Buffer
	r := newRig(t, Options{
		Lockout: Lockout{Failures: 1, Window: minute, Duration: minute},
	})
	r.users.put(User{Login: "bob", Hash: fakeChosen(secret), Networks: prefixes("192.0.2.0/24")})
	for _, err := range []error{
		r.try("bob", secret, there), r.try("bob", secret+"x", here), r.try("nobody", secret, here),
		r.try("bob", secret+long(300), here), r.try("bob\x00", secret, here),
	} {
		fmt.Fprintf(&out, "%v %+v %#v", err, err, err)
	}
	user, _ := r.users.User(t.Context(), "bob")
	fmt.Fprintf(&out, "%v %+v %#v", user, user, user)
	if strings.Contains(out.String(), secret) || strings.Contains(out.String(), "argon2id") {
		t.Errorf("a secret was printed:\n%s", out.String())
	}
}

func TestConcurrentUse(t *testing.T) {
	r := newRig(t, Options{CacheSize: 8, Lockout: Lockout{Failures: 5, Window: minute, Duration: minute}})
	r.onLock = nil
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				r.try("anna", "right", from(i))
				r.try("anna", fmt.Sprint("wrong", j%7), from(j))
				r.try("printer", "k3m9p-right", from(j))
				r.Lookup(context.Background(), "anna")
				if j%50 == 0 {
					r.Forget("anna")
					r.Forget()
					r.SetLockout(Lockout{Failures: 5, Window: minute, Duration: minute})
				}
				r.Stats()
			}
		})
	}
	wg.Wait()
}

func BenchmarkAuthenticateCached(b *testing.B) {
	r := newRig(b, Options{Lockout: Lockout{Failures: 10, Window: minute, Duration: minute}})
	ctx := context.Background()
	if _, err := r.Authenticate(ctx, "anna", "right", here); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(ctx, "anna", "right", here); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthenticateGenerated(b *testing.B) {
	r := newRig(b, Options{CacheTTL: 1})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(ctx, "printer", "k3m9p-right", here); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHashChosen(b *testing.B) {
	for b.Loop() {
		HashChosen("correct horse battery")
	}
}
