package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

// announced is a Storage of which a node hears that something has changed.
type announced struct {
	Storage
	heard func()
}

func (a announced) Announce(ctx context.Context) error {
	err := a.Storage.Announce(ctx)
	a.heard()
	return err
}

// late is a Storage of a node that is slow to take the lock of who orders.
type late struct {
	Storage
	before func()
}

func (l late) TryLock(ctx context.Context, name string) (bool, error) {
	if name == tendLock {
		l.before()
	}
	return l.Storage.TryLock(ctx, name)
}

// Two nodes see at once that a certificate is due, at first and after somebody asked: one orders, and both have what it
// got. The other comes to its turn while the first is at it, or right after it.
func TestNodesOrderOnce(t *testing.T) {
	for _, during := range []bool{true, false} {
		t.Run(fmt.Sprint("during ", during), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newOffice(t), newOffice(t)
				dir := t.TempDir()
				var seen, at, done chan struct{}
				a.o.Storage = late{openStore(t, dir).ACME(), func() { <-seen }}
				b.o.Storage = late{openStore(t, dir).ACME(), func() {
					close(seen) // it has found the certificate due before a began
					if during {
						<-at
					} else {
						<-done
					}
				}}
				b.fakeCA, b.o.Transport, b.o.Directory = a.fakeCA, a.o.Transport, a.o.Directory
				a.set(func() {
					a.beforeChain = func() {
						close(at)
						time.Sleep(time.Second)
					}
				})
				ka, kb := New(a.o), New(b.o)
				for want := 1; want <= 3; want++ {
					seen, at, done = make(chan struct{}), make(chan struct{}), make(chan struct{})
					var wg sync.WaitGroup
					wg.Go(func() {
						ka.pass(t.Context())
						close(done)
					})
					wg.Go(func() { kb.pass(t.Context()) })
					wg.Wait()
					kb.pass(t.Context()) // it heard of it
					if n := a.count("/order"); n != want {
						t.Fatalf("%d orders, want %d\n%s%s", n, want, a.log.String(), b.log.String())
					}
					if ca, cb := a.now(), b.now(); len(ca) != 1 || len(cb) != 1 || !ca[0].Leaf.Equal(cb[0].Leaf) {
						t.Fatal("they present different certificates")
					}
					time.Sleep(2 * look)
					if err := Ask(t.Context(), a.o.Storage, fakeName, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// The CA asks the node that did not order.
func TestPebbleAsksTheOtherNode(t *testing.T) {
	for _, kind := range []string{HTTP01, TLSALPN01} {
		t.Run(kind, func(t *testing.T) {
			z := newZone(t)
			_, o, log := withPebble(t, z, testkit.PebbleOptions{})
			o.Order, o.Shared = []string{kind}, true
			other := *o
			other.Logger = nil
			dir := t.TempDir()
			other.Storage = openStore(t, dir).ACME()
			b := New(other)
			o.Storage = announced{openStore(t, dir).ACME(), b.Kick}
			o.HTTP = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) // nobody asks here
			o.ALPN = o.HTTP
			ctx, cancel := context.WithCancel(t.Context())
			var mirrors sync.WaitGroup
			mirrors.Go(func() { b.answerOthers(ctx) })
			defer mirrors.Wait()
			defer cancel()
			var got []Certificate
			o.Issued = func(all []Certificate) { got = all }
			if New(*o).pass(t.Context()); len(got) != 1 {
				t.Fatal(log)
			}
			if _, err := o.Storage.List(t.Context(), challengeDir, true); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the answer is still stored: %v", err)
			}
			if strings.Contains(log.String(), "level=WARN") {
				t.Error(log)
			}
		})
	}
}

// What is stored is given only as long as an order lasts, and only if it is an answer; a node that orders itself ends
// what one that died has left behind.
func TestAnswersOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := newOffice(t)
		of.o.Shared, of.o.ALPNShared = true, true
		k := New(of.o)
		ctx := t.Context()
		put := func(key, text string) {
			t.Helper()
			if err := of.o.Storage.Store(ctx, challengeDir+"/"+key, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		given := func() int {
			k.mirrorOnce(ctx)
			b := k.options.board
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.answers)
		}
		const good = `{"node":"n","type":"tls-alpn-01","name":"a.example.com","token":"t","answer":"t.print"}`
		put("1", "no JSON")
		put("2", `{"node":"n","type":"tls-alpn-01","name":"b.example.com","token":"../t","answer":"../t.print"}`)
		put("3", `{"node":"n","type":"tls-alpn-01","name":"c.example.com","token":"t","answer":"u.print"}`)
		put("4", strings.Replace(good, `"n"`, `"`+k.options.mirror.node+`"`, 1))
		if n := given(); n != 0 {
			t.Errorf("%d answers are given that are none", n)
		}
		put("5", good)
		if first, again := given(), given(); first != 1 || again != 1 {
			t.Error("the answer of another node is not given")
		}
		time.Sleep(attemptTime + time.Second)
		if given() != 0 {
			t.Error("it is given for ever")
		}
		put("5", good)
		if given() != 1 {
			t.Fatal("not given")
		}
		done, err := k.options.giveAtAll(ctx, challengeOf(TLSALPN01))
		if err != nil {
			t.Fatal(err)
		}
		if n := given(); n != 1 {
			t.Errorf("%d answers while this node orders", n)
		}
		done()
		if n := given(); n != 0 {
			t.Errorf("%d answers after it", n)
		}
		if err := of.o.Storage.Delete(ctx, challengeDir); err != nil {
			t.Fatal(err)
		}
		of.o.Shared = false
		k.Use(of.o)
		put("5", good)
		if given() != 0 {
			t.Error("given, though no other node is there")
		}
	})
}
