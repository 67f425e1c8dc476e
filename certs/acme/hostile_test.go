package acme

import (
	"bytes"
	"context"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// What is in use is what was checked: no chain of a CA gets past the one and not past the other.
func TestHostileChain(t *testing.T) {
	for _, c := range []struct {
		name   string
		mangle func(leaf, root []byte) []byte
		want   string // in the error; "": it is taken
	}{
		{"wrong order", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", root), block("CERTIFICATE", leaf)...)
		}, "another key"},
		{"garbage", func([]byte, []byte) []byte { return []byte("what is this") }, "certificate"},
		{"nothing", func([]byte, []byte) []byte { return nil }, "certificate"},
		{"broken", func([]byte, []byte) []byte { return block("CERTIFICATE", []byte("x")) }, "certificate"},
		{"a disguise", func(leaf, root []byte) []byte {
			return append(block("X", leaf), block("CERTIFICATE", root)...)
		}, `"X" is among`},
		{"a private key", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", leaf), block("PRIVATE KEY", root)...)
		}, `"PRIVATE KEY" is among`},
		{"garbage after the leaf", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", leaf), block("CERTIFICATE", root[:40])...)
		}, "can be read"},
		{"endless", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", leaf), bytes.Repeat(block("CERTIFICATE", root), 500)...)
		}, "more than 10 certificates"},
		{"the leaf alone", func(leaf, _ []byte) []byte { return block("CERTIFICATE", leaf) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, of *office) {
				of.mangle = c.mangle
				New(of.o).pass(t.Context())
				st := of.state(t)
				if c.want == "" {
					if st.Failures != 0 || len(of.now()) != 1 {
						t.Errorf("%+v", st)
					}
					return
				}
				if st.Failures != 1 || !strings.Contains(st.Error, c.want) || len(of.now()) != 0 {
					t.Errorf("%+v, %d in use, want %q", st, len(of.now()), c.want)
				}
				if strings.Contains(st.Error, "%!") {
					t.Errorf("badly written: %q", st.Error)
				}
			})
		})
	}
}

// However long a CA says to wait before the next look, an attempt ends, and does not ask without pause.
func TestHostilePolling(t *testing.T) {
	for _, after := range []string{"31536000", "-1", "0", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT",
		"Thu, 01 Jan 1970 00:00:00 GMT", "soon"} {
		for _, where := range []string{"/order/1", "/finalize", "/authz"} {
			t.Run(after+where, func(t *testing.T) {
				bubble(t, func(t *testing.T, of *office) {
					of.answer = func(w http.ResponseWriter, path string) bool {
						if path != where && !(where == "/finalize" && path == "/order/1") {
							return false
						}
						w.Header().Set("Retry-After", after)
						if where == "/authz" {
							_, _ = w.Write([]byte(`{"status":"pending","identifier":{"type":"dns","value":"` +
								fakeName + `"},"challenges":[{"type":"dns-persist-01","url":"` + of.base +
								`/challenge/dns-persist-01","status":"processing",` +
								`"issuer-domain-names":["ca.example.net"]}]}`))
							return true
						}
						w.Header().Set("Location", of.base+"/order/1")
						_, _ = w.Write([]byte(`{"status":"processing","finalize":"` + of.base + `/finalize"}`))
						return true
					}
					begin := time.Now()
					New(of.o).pass(t.Context())
					if took := time.Since(begin); took > attemptTime+2*time.Minute {
						t.Errorf("it took %s", took)
					}
					n := of.count("/authz") + of.count("/order/1") + of.count("/finalize")
					if n > 400 {
						t.Errorf("%d requests", n)
					}
					if st := of.state(t); where != "/order/1" && st.Failures != 1 {
						t.Errorf("%+v", st)
					}
				})
			})
		}
	}
}

// mortal is a storage whose process dies after some writes: nothing more is written, no lock given back.
type mortal struct {
	Storage
	left *int
	die  func()
}

func (m mortal) Store(ctx context.Context, key string, value []byte) error {
	if *m.left--; *m.left < 0 {
		m.die()
		return errFull
	}
	return m.Storage.Store(ctx, key, value)
}

func (m mortal) Announce(ctx context.Context) error {
	if *m.left--; *m.left < 0 {
		m.die()
		return errFull
	}
	return m.Storage.Announce(ctx)
}

func (m mortal) Delete(ctx context.Context, key string) error {
	if *m.left < 0 {
		return errFull
	}
	return m.Storage.Delete(ctx, key)
}

func (m mortal) Unlock(ctx context.Context, name string) error {
	_ = m.Storage.Unlock(ctx, name) // else this process would prolong it; the store's tests have locks of the dead
	return nil
}

// Wherever between two writes a process dies, at first or while it renews, the next one ends up with a certificate
// that works, and no more than one order each five minutes is made.
func TestDiesBetweenWrites(t *testing.T) {
	for _, renews := range []bool{false, true} {
		for writes := 0; ; writes++ {
			survived := false
			synctest.Test(t, func(t *testing.T) {
				of := newOffice(t)
				if renews {
					New(of.o).pass(t.Context())
					time.Sleep(time.Minute)
					if err := Ask(t.Context(), of.o.Storage, fakeName, time.Now()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				ctx, die := context.WithCancel(t.Context())
				defer die()
				left, whole := writes, of.o.Storage
				of.o.Storage = mortal{whole, &left, die}
				New(of.o).pass(ctx)
				survived = left >= 0
				of.o.Storage = whole
				k := New(of.o)
				_ = k.Load(t.Context()) // half of a pair is told elsewhere
				before := of.count("/order")
				for begin := time.Now(); time.Since(begin) < 30*time.Minute; {
					time.Sleep(k.pass(t.Context()))
				}
				if n := of.count("/order") - before; n > 1 {
					t.Errorf("renews %t, %d writes: %d orders after it", renews, writes, n)
				}
				if got := of.now(); len(got) != 1 || of.state(t).Failures != 0 || !of.state(t).Begun.IsZero() {
					t.Errorf("renews %t, %d writes: %d certificates, %+v", renews, writes, len(got), of.state(t))
				}
			})
			if survived {
				break
			}
		}
	}
}

// An account that was closed at the CA is told in the CA's words, and the certificate in use stays.
func TestAccountClosed(t *testing.T) {
	bubble(t, func(t *testing.T, of *office) {
		k := New(of.o)
		of.lifetime = 24 * time.Hour
		k.pass(t.Context())
		of.set(func() {
			of.answer = func(w http.ResponseWriter, path string) bool {
				if path == "/account" || path == "/order" {
					problem(w, 401, "unauthorized", "the account was deactivated")
					return true
				}
				return false
			}
		})
		for begin := time.Now(); time.Since(begin) < 23*time.Hour; {
			time.Sleep(k.pass(t.Context()))
		}
		st := of.state(t)
		if !strings.Contains(st.Error, "the account was deactivated") ||
			st.Failures < 2 || st.Failures > 7 || len(of.now()) != 1 {
			t.Errorf("%+v", st)
		}
	})
}
