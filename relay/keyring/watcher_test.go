package keyring

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/sign"
)

// shelf is a store in memory.
type shelf struct {
	mu    sync.Mutex
	keys  []Key
	known []Key // of relay.toml
	err   error
}

func none() []sign.Key { return nil }

func (s *shelf) ConfiguredKeys(context.Context) ([]Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.known), s.err
}

func (s *shelf) ChangeConfiguredKeys(_ context.Context, change func([]Key) []Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = change(slices.Clone(s.known))
	return nil
}

func (s *shelf) Keys(context.Context) ([]Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys), s.err
}

func (s *shelf) ChangeKeys(_ context.Context, change func([]Key) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	after := slices.Clone(s.keys)
	if err := change(after); err != nil {
		return err
	}
	s.keys = after
	return nil
}

// world is DNS: what is published by name.
type world struct {
	mu    sync.Mutex
	texts map[string]string
	err   error
	asked []time.Time
	hang  bool
}

func (w *world) DKIM(ctx context.Context, domain, selector string) (Answer, error) {
	w.mu.Lock()
	w.asked = append(w.asked, time.Now())
	text, err, hang := w.texts[selector+"._domainkey."+domain], w.err, w.hang
	w.mu.Unlock()
	if hang {
		<-ctx.Done()
		return Answer{}, ctx.Err()
	}
	if err != nil {
		return Answer{ResolverErr: err}, nil
	}
	var a Answer
	if text != "" {
		a.Resolver = []string{text}
	}
	return a, nil
}

func (w *world) set(f func()) { w.mu.Lock(); f(); w.mu.Unlock() }

// stored is a key of the store, made now.
func stored(t *testing.T, alg, selector string, stage Stage) (Key, string) {
	key, pem := newKey(t, alg, selector)
	now := time.Now()
	return Key{Domain: key.Domain, Selector: selector, Algorithm: alg, PEM: pem, Created: now,
		State: State{Stage: stage, Since: now}}, record(t, key)
}

func run(t *testing.T, w *Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// A rotation from its first minute to the end: the new key signs after an hour in DNS, which fails in between.
func TestWatcherRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, oldText := stored(t, sign.Ed25519, "e1", Signing)
		time.Sleep(time.Hour)
		young, text := stored(t, sign.Ed25519, "e2", New)
		s := &shelf{keys: []Key{old, young}}
		dns := &world{texts: map[string]string{old.String(): oldText}}
		var log strings.Builder
		run(t, &Watcher{Store: s, Lookup: dns, Configured: none, Every: time.Minute,
			Logger: slog.New(slog.NewTextHandler(&log, nil))})
		expect := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if keys, _ := s.Keys(t.Context()); stages(keys) != want {
				t.Fatalf("%s, want %s", stages(keys), want)
			}
		}
		expect(30*time.Minute, "e1=signing e2=new")
		dns.set(func() { dns.texts[young.String()] = text })
		expect(7*time.Minute, "e1=signing e2=published")
		dns.set(func() { dns.err = errors.New("timeout") })
		expect(2*time.Hour, "e1=signing e2=published")
		dns.set(func() { dns.err = nil })
		expect(70*time.Minute, "e1=retiring e2=signing")
		dns.set(func() { dns.texts = nil })
		expect(30*24*time.Hour, "e1=retiring e2=signing")
		if keys, _ := s.Keys(t.Context()); !keys[1].Broken() || keys[0].Broken() {
			t.Error("nobody is told that the record of the key that signs is gone")
		}
		if said := log.String(); strings.Count(said, "stage=published") != 1 ||
			strings.Count(said, "stage=signing") != 1 ||
			strings.Contains(said, "PRIVATE") {
			t.Error(said)
		}
	})
}

// However many keys there are, other people's servers are asked so often.
func TestWatcherIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _ := stored(t, sign.Ed25519, "e1", Signing)
		s, dns := &shelf{}, &world{}
		for i := range 200 {
			k := first
			k.Domain = string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".example"
			s.keys = append(s.keys, k)
		}
		run(t, &Watcher{Store: s, Lookup: dns, Configured: none, Every: time.Minute,
			Logger: slog.New(slog.DiscardHandler)})
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if n := len(dns.asked); n != 10*mostLooks {
			t.Errorf("asked %d times in ten minutes", n)
		}
	})
}

// A key that cannot be read keeps nobody from looking for the others.
func TestWatcherWithABadKey(t *testing.T) {
	good, text := stored(t, sign.Ed25519, "e1", New)
	bad := good
	bad.Selector, bad.PEM = "e0", "no key"
	bad.Domain = "other.example"
	s := &shelf{keys: []Key{bad, good}}
	var log strings.Builder
	w := &Watcher{Store: s, Lookup: &world{texts: map[string]string{good.String(): text}},
		Configured: none, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if err := w.round(t.Context(), time.Now); err != nil || stages(s.keys) != "e0=new e1=signing" ||
		!strings.Contains(log.String(), "e0._domainkey.other.example") {
		t.Errorf("%s, %v: %s", stages(s.keys), err, log.String())
	}
}

// A silent DNS holds nothing up for long, a shutdown least, and changes no key. A store that fails is told of once.
func TestWatcherWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := stored(t, sign.Ed25519, "e1", New)
		s, dns := &shelf{keys: []Key{k}}, &world{hang: true}
		var log strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		w := &Watcher{Store: s, Lookup: dns, Configured: none, Every: time.Minute,
			Logger: slog.New(slog.NewTextHandler(&log, nil))}
		go func() { defer close(done); w.Run(ctx) }()
		time.Sleep(time.Minute + lookFor + time.Second)
		synctest.Wait()
		if keys, _ := s.Keys(ctx); !keys[0].Silent || keys[0].Stage != New || keys[0].Found != Nothing {
			t.Errorf("%+v", keys[0].State)
		}
		s.mu.Lock()
		s.err = errors.New("disk on fire")
		s.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if strings.Count(log.String(), "disk on fire") != 1 {
			t.Error(log.String())
		}
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		time.Sleep(time.Minute + time.Second) // it looks
		synctest.Wait()
		before := time.Now()
		cancel()
		<-done
		if took := time.Since(before); took > 0 {
			t.Errorf("the shutdown waited for %s", took)
		}
		if keys, _ := s.Keys(t.Context()); keys[0].Looked.After(before) {
			t.Error("a look that was cut off counts")
		}
	})
}

// fragile fails at one of its writes, as if the process had ended between the look and the commit.
type fragile struct {
	*shelf
	until int // writes before the one that fails
}

func (f *fragile) ChangeKeys(ctx context.Context, change func([]Key) error) error {
	f.until--
	if f.until == -1 {
		return errors.New("killed")
	}
	return f.shelf.ChangeKeys(ctx, change)
}

// Wherever a process ends during a rotation, the next one goes on from what was committed: never with two keys that
// sign, nor with none.
func TestRotationGoesOnAfterACrash(t *testing.T) {
	old, oldText := stored(t, sign.Ed25519, "e1", Signing)
	young, text := stored(t, sign.Ed25519, "e2", New)
	young.Created = old.Created.Add(1)
	dns := &world{texts: map[string]string{old.String(): oldText, young.String(): text}}
	for crash := range 6 {
		s := &fragile{&shelf{keys: []Key{old, young}}, crash}
		now := old.Created
		for round := 0; round < 6; round++ {
			w := &Watcher{Store: s, Lookup: dns, Configured: none, // of a new process
				Logger: slog.New(slog.DiscardHandler)}
			err := w.round(t.Context(), func() time.Time { return now })
			if (err != nil) != (s.until == -1 && round == crash) {
				t.Fatalf("crash %d, round %d: %v", crash, round, err)
			}
			got := stages(s.keys)
			if strings.Count(got, "signing") != 1 {
				t.Fatalf("crash %d, round %d: %s", crash, round, got)
			}
			now = now.Add(70 * time.Minute)
		}
		if got := stages(s.keys); got != "e1=retiring e2=signing" {
			t.Errorf("crash %d: %s", crash, got)
		}
	}
}

// The record of a key of relay.toml is looked for as that of any key that signs: people are told when it is gone.
// Another file under its selector is another key, and one that was taken out is forgotten.
func TestConfiguredKeysAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _ := newKey(t, sign.Ed25519, "file")
		second, _ := newKey(t, sign.Ed25519, "file")
		s, dns := &shelf{}, &world{texts: map[string]string{first.RecordName(): record(t, first)}}
		var mu sync.Mutex
		inForce := []sign.Key{first}
		set := func(keys ...sign.Key) { mu.Lock(); inForce = keys; mu.Unlock() }
		run(t, &Watcher{Store: s, Lookup: dns, Every: time.Minute, Logger: slog.New(slog.DiscardHandler),
			Configured: func() []sign.Key { mu.Lock(); defer mu.Unlock(); return inForce }})
		after := func(d time.Duration, found Found, kinds ...string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			known, _ := s.ConfiguredKeys(t.Context())
			ring := Ring{Configured: known}
			var told []string
			for _, m := range ring.Reminders(time.Now()) {
				told = append(told, m.Kind)
			}
			if len(known) != 1 || known[0].Found != found || known[0].Stage != Signing || !slices.Equal(told, kinds) {
				t.Fatalf("%+v, reminded of %q", known, told)
			}
		}
		after(2*time.Minute, Seen)
		looks := len(dns.asked)
		after(23*time.Hour, Seen)
		if len(dns.asked) != looks {
			t.Errorf("%d looks in a day", len(dns.asked))
		}
		dns.set(func() { dns.texts = nil })
		after(4*time.Hour, Absent, BrokenKey)
		dns.set(func() { dns.texts = map[string]string{first.RecordName(): record(t, first)} })
		after(2*time.Hour, Seen)
		set(second)
		after(2*time.Minute, Differs) // told by one look, which may have been too early
		after(10*time.Minute, Differs, BrokenKey)
		set(first)
		after(2*time.Minute, Seen)
		store, _ := stored(t, sign.Ed25519, "e9", New)
		set()
		if _, err := (&Watcher{Store: s, Lookup: dns, Configured: none}).Look(t.Context(), []Key{store, s.known[0]},
			time.Now); err != nil || len(s.known) != 0 {
			t.Errorf("%+v, %v", s.known, err)
		}
	})
}
