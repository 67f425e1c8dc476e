package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestACMEItems(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	a, ctx := s.ACME(), t.Context()
	if _, err := a.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load of nothing: %v", err)
	}
	if _, err := a.List(ctx, "a", true); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("list of nothing: %v", err)
	}
	secret := []byte("-----BEGIN PRIVATE KEY-----abcdefgh")
	for _, key := range []string{"a/b/c.key", "a/b/d", "a/e", "ab/c", "a0", "a%/x"} {
		if err := a.Store(ctx, key, append(bytes.Clone(secret), key...)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := a.Load(ctx, "a/e"); err != nil || !bytes.Equal(got, append(bytes.Clone(secret), "a/e"...)) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, c := range []struct {
		dir       string
		recursive bool
		want      []string
	}{
		{"a", false, []string{"a/b", "a/e"}},
		{"a", true, []string{"a/b", "a/b/c.key", "a/b/d", "a/e"}},
		{"a/b", false, []string{"a/b/c.key", "a/b/d"}},
		{"", false, []string{"a", "a%", "a0", "ab"}},
	} {
		if got, err := a.List(ctx, c.dir, c.recursive); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("List(%q, %v) = %q, %v", c.dir, c.recursive, got, err)
		}
	}
	info, err := a.Stat(ctx, "a/b/d")
	if err != nil || !info.IsTerminal || info.Size != int64(len(secret)+5) || time.Since(info.Modified) > time.Hour {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err = a.Stat(ctx, "a/b"); err != nil || info.IsTerminal {
		t.Errorf("a directory: %+v, %v", info, err)
	}
	if !a.Exists(ctx, "a/b") || a.Exists(ctx, "a/b/x") {
		t.Error("Exists")
	}
	if err := errors.Join(a.Delete(ctx, "a"), a.Delete(ctx, "none")); err != nil {
		t.Fatal(err)
	}
	left, err := a.List(ctx, "", true)
	if err != nil || !slices.Equal(left, []string{"a%", "a%/x", "a0", "ab", "ab/c"}) {
		t.Errorf("left: %q, %v", left, err)
	}
	if err := a.Delete(ctx, "/"); err == nil {
		t.Error("everything can be deleted at once")
	}
	fileOnly(t)
	files, err := filepath.Glob(filepath.Join(dir, FileName+"*"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files { // sealed: no octet of a key is in a file
		if data, err := os.ReadFile(name); err != nil || bytes.Contains(data, secret) {
			t.Errorf("%s has the key in clear (%v)", name, err)
		}
	}
}

func TestACMEBounds(t *testing.T) {
	fileOnly(t) // by SQL of SQLite
	a, ctx := open(t, Options{}).ACME(), t.Context()
	if err := a.Store(ctx, "k", make([]byte, maxACMEValue+1)); !errors.Is(err, errACMEBound) {
		t.Error(err)
	}
	if err := a.Store(ctx, strings.Repeat("k", maxACMEKey+1), nil); !errors.Is(err, errACMEBound) {
		t.Error(err)
	}
	if _, err := a.TryLock(ctx, strings.Repeat("k", maxACMEKey+1)); !errors.Is(err, errACMEBound) {
		t.Error(err)
	}
	err := a.s.write(ctx, func(tx *tx) error {
		return tx.Run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "+
			"INSERT INTO acme_item SELECT 'n' || i, x'00', 0, 0 FROM n", maxACMEItems)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Store(ctx, "more", nil); !errors.Is(err, errACMEBound) {
		t.Error(err)
	}
	if err := a.Store(ctx, "n1", []byte("x")); err != nil { // what is there can be replaced
		t.Error(err)
	}
}

// Several processes take turns: never two at a time, and none is forgotten.
func TestACMELock(t *testing.T) {
	dir := t.TempDir()
	var inside, most, turns atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		a := open(t, Options{Dir: dir}).ACME()
		for range 2 {
			wg.Go(func() {
				if err := a.Lock(t.Context(), "issue"); err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				turns.Add(1)
				inside.Add(-1)
				if err := a.Unlock(t.Context(), "issue"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if most.Load() != 1 || turns.Load() != 8 {
		t.Errorf("%d at once, %d turns", most.Load(), turns.Load())
	}
}

// A lock whose process died is free after a while, and one that is waited for can be given up.
func TestACMELockOfTheDead(t *testing.T) {
	s := open(t, Options{})
	a, b, ctx := s.ACME(), s.ACME(), t.Context()
	if got, err := a.TryLock(ctx, "x"); !got || err != nil {
		t.Fatal(got, err)
	}
	if got, err := b.TryLock(ctx, "x"); got || err != nil {
		t.Fatal("taken twice", err)
	}
	waits, giveUp := context.WithCancel(ctx)
	giveUp()
	if err := b.Lock(waits, "x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err := s.write(ctx, func(tx *tx) error {
		return tx.Run("UPDATE acme_lock SET until = ?", unixNano(time.Now().Add(-time.Second)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.TryLock(ctx, "x"); !got || err != nil {
		t.Fatal(got, err)
	}
	if err := a.Unlock(ctx, "x"); err != nil { // late: it must not take the lock from b
		t.Fatal(err)
	}
	if got, _ := a.TryLock(ctx, "x"); got {
		t.Error("a late unlock freed the lock of another")
	}
	if err := b.Unlock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if err := b.Unlock(ctx, "x"); err == nil {
		t.Error("unlocked what is not held")
	}
}

// A lock that ran out while the machine slept is not taken by another goroutine of the process that has it: whoever
// unlocks first would give back the other's.
func TestACMELockThatRanOut(t *testing.T) {
	s := open(t, Options{})
	a, ctx := s.ACME(), t.Context()
	if got, err := a.TryLock(ctx, "x"); !got || err != nil {
		t.Fatal(got, err)
	}
	err := s.write(ctx, func(tx *tx) error {
		return tx.Run("UPDATE acme_lock SET until = ?", unixNano(time.Now().Add(-time.Second)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.TryLock(ctx, "x"); got || err != nil {
		t.Error("taken twice in one process", err)
	}
	if err := a.Unlock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if got, err := a.TryLock(ctx, "x"); !got || err != nil {
		t.Error(got, err)
	}
	if err := a.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
}

func TestACMEAnnounce(t *testing.T) {
	s := open(t, Options{})
	bumped(t, s, TopicACME, 1, func() error { return s.ACME().Announce(t.Context()) })
}

// A process that died while the clock was a day ahead leaves no lock for a day.
func TestACMELockOfAClockAhead(t *testing.T) {
	s := open(t, Options{})
	a, ctx := s.ACME(), t.Context()
	err := s.write(ctx, func(tx *tx) error {
		return tx.Run("INSERT INTO acme_lock VALUES ('x', 'dead', ?)", unixNano(time.Now().Add(24*time.Hour)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.TryLock(ctx, "x"); !got || err != nil {
		t.Fatal(got, err)
	}
	if err := a.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
}

// Nodes whose clocks are an hour apart agree on who has a lock, and until when: times are by the clock of the database.
func TestACMELockBySharedClock(t *testing.T) {
	dir := t.TempDir()
	right, ahead, behind := open(t, Options{Dir: dir}), open(t, Options{Dir: dir}), open(t, Options{Dir: dir})
	now := time.Now()
	right.clock.set(now.Add(time.Hour).UnixNano(), now, now)
	ahead.clock.set(now.UnixNano(), now, now)
	behind.clock.set(now.Add(2*time.Hour).UnixNano(), now, now)
	// As far as the database is concerned, ahead asks an hour before right, and behind an hour after it.
	a := right.ACME()
	if got, err := a.TryLock(t.Context(), "x"); !got || err != nil {
		t.Fatal(got, err)
	}
	var until int64
	err := right.write(t.Context(), func(tx *tx) (err error) {
		until, _, err = tx.Int("SELECT until FROM acme_lock")
		return err
	})
	if at := fromNano(until).Sub(now.Add(time.Hour + lockFor)); err != nil || at < 0 || at > time.Minute/2 {
		t.Errorf("held until %v after what is right, %v", at, err)
	}
	if got, err := behind.ACME().TryLock(t.Context(), "x"); !got || err != nil {
		t.Error("a lock that ran out an hour ago is held", err)
	}
	if err := a.Store(t.Context(), "k", nil); err != nil {
		t.Fatal(err)
	}
	info, err := ahead.ACME().Stat(t.Context(), "k")
	if at := info.Modified.Sub(now.Add(time.Hour)); err != nil || at < -time.Second || at > time.Minute/2 {
		t.Errorf("modified %v, %v", info.Modified, err)
	}
}
