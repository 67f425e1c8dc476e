package store

import (
	"errors"
	"testing"

	"postern/relay/upstream/oauth"
	"postern/relay/upstream/oauth/oauthtest"
)

func TestGrantContract(t *testing.T) {
	if err := oauthtest.CheckGrantStore(t.Context(), open(t, Options{})); err != nil {
		t.Error(err)
	}
}

// Two processes on one store see each other's writes, and a grant outlives both.
func TestGrantsAreShared(t *testing.T) {
	dir := t.TempDir()
	daemon, command := open(t, Options{Dir: dir, Daemon: true}), open(t, Options{Dir: dir})
	first, err := daemon.SaveGrant(t.Context(), "office", []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command.SaveGrant(t.Context(), "office", []byte("two"), first); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.SaveGrant(t.Context(), "office", []byte("three"), first); !errors.Is(err,
		oauth.ErrGrantChanged) {
		t.Errorf("saved over the change of another: %v", err)
	}
	if n := generation(t, daemon, TopicGrants); n != 0 {
		t.Errorf("a renewal has every node try its accounts again: generation %d", n)
	}
	bumped(t, daemon, TopicGrants, 1, func() error { return command.Consented(t.Context()) })
	sealed, _, err := open(t, Options{Dir: dir}).LoadGrant(t.Context(), "office")
	if err != nil || string(sealed) != "two" {
		t.Errorf("%q, %v", sealed, err)
	}
}
