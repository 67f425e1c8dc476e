package store

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/certs"
)

// Nodes that start at once, with or without certificates of their own, present the same; and so they do when one renews
// them, or when names change at each.
func TestSelfSignedOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil)) // one for all: it keeps their lines apart
		options := func(name string) certs.Options {
			return certs.Options{Dir: filepath.Join(dir, name), Hostname: "relay.example.com", Logger: logger}
		}
		var nodes []*certs.Manager
		for _, name := range []string{"a", "b", "c"} {
			m, err := certs.New(options(name))
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, m)
		}
		same := func(what string) string {
			t.Helper()
			prints := map[string]bool{}
			for _, m := range nodes {
				info := m.Info()
				prints[info[0].Fingerprint+info[1].Fingerprint] = true
			}
			if len(prints) != 1 {
				t.Errorf("%s: %d pairs of certificates", what, len(prints))
			}
			return nodes[0].Info()[0].Fingerprint
		}
		var all sync.WaitGroup
		for _, m := range nodes {
			s := open(t, Options{Dir: filepath.Join(dir, "store")})
			all.Go(func() {
				if err := m.Share(s.ACME()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		first := same("at first")
		trust := func(name string) []byte {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(dir, name, "self-signed.crt"))
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		if !bytes.Equal(trust("a"), trust("b")) || !bytes.Equal(trust("b"), trust("c")) {
			t.Error("devices are told to trust different certificates")
		}
		time.Sleep(800 * 24 * time.Hour) // a month before their end
		for _, m := range nodes {
			if err := m.Reload(); err != nil {
				t.Fatal(err)
			}
		}
		second := same("after a renewal")
		if second == first {
			t.Error("they were not renewed")
		}
		for i, name := range []string{"a", "b", "c"} {
			o := options(name)
			o.Names = []string{"mail.example.com"}
			if err := nodes[i].Use(o); err != nil {
				t.Fatal(err)
			}
		}
		if third := same("after a change of names"); third == second {
			t.Error("the new name is not in them")
		}
		if bytes.Contains(log.Bytes(), []byte("of its own")) {
			t.Error(log.String())
		}
	})
}

// What was kept and is damaged, or is not good any more, gives way; a store that cannot be asked changes nothing.
func TestAgree(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, Options{Dir: dir}).ACME(), open(t, Options{Dir: dir})
	good := func(kept []byte) bool { return !bytes.Equal(kept, []byte("old")) }
	agree := func(s *ACME, ours, want string) {
		t.Helper()
		if got, err := s.Agree(t.Context(), "k", good, []byte(ours)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", ours, got, err, want)
		}
	}
	agree(a, "old", "old")
	agree(b.ACME(), "one", "one")
	agree(a, "two", "one")
	if _, err := a.Agree(t.Context(), "k", good, make([]byte, maxACMEValue+1)); !errors.Is(err, errACMEBound) {
		t.Error(err)
	}
	err := b.write(t.Context(), func(tx *tx) error { return tx.Run("UPDATE acme_item SET sealed = x'00'") })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Agree(t.Context(), "k", good, []byte("three")); err == nil || got != nil {
		t.Errorf("what cannot be opened was replaced: %q, %v", got, err)
	}
}
