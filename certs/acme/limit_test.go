package acme

import (
	"net/http"
	"testing"
	"time"
)

// The tests run in a bubble, that is in synctest.Test( ), where no time passes.

// A CA that wants every certificate renewed at once does not have us order without end.
func TestAlwaysDue(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.window = [2]time.Time{time.Now().Add(-2 * time.Hour), time.Now().Add(-time.Hour)}
		k := New(of.o)
		for begun := time.Now(); time.Since(begun) < time.Hour; {
			time.Sleep(k.pass(t.Context()))
		}
		if n := of.count("/order"); n > 7 {
			t.Fatalf("%d orders in an hour", n)
		}
	})
}

// A wait that the CA wants holds for who asks and who changes settings, also where our own is longer.
func TestShortLimit(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		of.answer = func(w http.ResponseWriter, path string) bool {
			if path == "/order" {
				w.Header().Set("Retry-After", "600")
				problem(w, 429, "rateLimited", "too many orders")
			}
			return path == "/order"
		}
		New(of.o).pass(t.Context())
		before := of.count("/order")
		time.Sleep(time.Minute)
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now()); err != nil {
			t.Fatal(err)
		}
		of.o.Email = "other@example.com"
		New(of.o).pass(t.Context())
		if n := of.count("/order"); n != before {
			t.Fatalf("%d orders more while the CA said to wait", n-before)
		}
		time.Sleep(9 * time.Minute)
		New(of.o).pass(t.Context())
		if n := of.count("/order"); n == before {
			t.Fatal("who asked has to wait for longer than the CA wants")
		}
	})
}

// Who asked before a crash does not have each start order anew.
func TestCrashLoopAsked(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := saveState(t.Context(), &of.o, fakeName, State{Begun: time.Now()}); err != nil { // it died then
			t.Fatal(err)
		}
		New(of.o).pass(t.Context())
		if n := of.count("/order"); n != 0 {
			t.Fatalf("%d orders", n)
		}
	})
}

// What was written while the clock was ahead holds nothing up once it is right.
func TestClockWasAhead(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		ahead := time.Now().Add(5 * 365 * 24 * time.Hour)
		for _, st := range []State{
			{Attempted: ahead, Failures: 3, Since: ahead, Next: ahead.Add(time.Hour), Settings: of.o.digest()},
			{Begun: ahead},
		} {
			if err := saveState(t.Context(), &of.o, fakeName, st); err != nil {
				t.Fatal(err)
			}
			before := of.count("/order")
			if err := of.o.Storage.Delete(t.Context(), "certificates"); err != nil {
				t.Fatal(err)
			}
			New(of.o).pass(t.Context())
			if of.count("/order") == before || of.state(t).ahead(time.Now()) {
				t.Fatalf("%+v is left alone: %+v", st, of.state(t))
			}
		}
	})
}

// Who asks while the clock is ahead gets one certificate, not one after the other until the clock is there.
func TestAskedWhileClockWasAhead(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		k := New(of.o)
		k.pass(t.Context())
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now().Add(24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < 2*time.Hour; {
			time.Sleep(k.pass(t.Context()))
		}
		if n := of.count("/order"); n != 2 {
			t.Errorf("%d orders, want the first and the one that was asked for", n)
		}
	})
}

// What was asked for and refused is tried again, though the certificate in use is good for longer.
func TestAskedAndRefused(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		k := New(of.o)
		k.pass(t.Context())
		time.Sleep(time.Minute)
		if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		of.set(func() { of.invalid = "not now" })
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			time.Sleep(k.pass(t.Context()))
		}
		of.set(func() { of.invalid = "" })
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			time.Sleep(k.pass(t.Context()))
		}
		if n := of.count("issued"); n != 2 {
			t.Errorf("%d certificates, %+v", n, of.state(t))
		}
	})
}
