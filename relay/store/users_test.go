package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/auth"
	"postern/policy"
	"postern/relay/keyring"
)

func generation(t testing.TB, s *Store, topic string) int64 {
	t.Helper()
	all, err := s.Generations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all[topic]
}

// bumped expects that f changes the generation of a topic by so much.
func bumped(t *testing.T, s *Store, topic string, by int64, f func() error) {
	t.Helper()
	before := generation(t, s, topic)
	if err := f(); err != nil {
		t.Fatal(err)
	}
	if got := generation(t, s, topic) - before; got != by {
		t.Errorf("the generation of %s rose by %d, want %d", topic, got, by)
	}
}

func TestUsers(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	alice := auth.User{
		Login: "alice", Hash: "$argon2id$secret", Generated: true, Device: true, Locked: true, LockReason: "too much",
		Senders: []string{"*@example.com"}, Groups: []string{"staff"},
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Created:  eventTime, Changed: eventTime.Add(time.Hour), Note: "bürö",
	}
	bumped(t, s, TopicUsers, 1, func() error { return s.AddUser(ctx, alice) })
	if err := s.AddUser(ctx, alice); !errors.Is(err, ErrExists) {
		t.Errorf("the same again: %v", err)
	}
	if got, err := s.User(ctx, "alice"); err != nil || !reflect.DeepEqual(got, alice) {
		t.Errorf("got %#v, %v", got, err)
	}
	for _, login := range []string{"ALICE", "", "bob", "alice "} {
		if _, err := s.User(ctx, login); !errors.Is(err, auth.ErrUnknownLogin) {
			t.Errorf("%q: %v", login, err)
		}
	}
	bumped(t, s, TopicUsers, 1, func() error { return s.AddUser(ctx, auth.User{Login: "bob", Hash: "y"}) })
	bumped(t, s, TopicUsers, 1, func() error {
		return s.UpdateUser(ctx, "bob", func(u *auth.User) error { u.Locked = true; return nil })
	})
	users, err := s.Users(ctx)
	if err != nil || len(users) != 2 || users[0].Login != "alice" || users[1].Hash != "y" || !users[1].Locked {
		t.Errorf("got %#v, %v", users, err)
	}
	refused := errors.New("no")
	if err := s.UpdateUser(ctx, "bob", func(*auth.User) error { return refused }); !errors.Is(err, refused) {
		t.Error(err)
	}
	if err := s.UpdateUser(ctx, "carol", func(*auth.User) error { return nil }); !errors.Is(err, auth.ErrUnknownLogin) {
		t.Error(err)
	}
	bumped(t, s, TopicUsers, 1, func() error { return s.DeleteUser(ctx, "alice", nil) })
	bumped(t, s, TopicUsers, 0, func() error {
		if err := s.DeleteUser(ctx, "alice", nil); !errors.Is(err, auth.ErrUnknownLogin) {
			t.Error(err)
		}
		return nil
	})
}

// TestUpdateUserLosesNothing: changes of many at once are all kept.
func TestUpdateUserLosesNothing(t *testing.T) {
	s := open(t, Options{})
	if err := s.AddUser(t.Context(), auth.User{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			err := s.UpdateUser(t.Context(), "alice", func(u *auth.User) error {
				u.Senders = append(u.Senders, fmt.Sprint("s", i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if u, err := s.User(t.Context(), "alice"); err != nil || len(u.Senders) != 20 {
		t.Errorf("%d changes were kept: %v", len(u.Senders), err)
	}
}

// TestChangeUsersIsAllOrNothing: what one login refuses changes none of the others.
func TestChangeUsersIsAllOrNothing(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	if err := s.AddUser(ctx, auth.User{Login: "alice", Note: "before"}); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	logins := []string{"alice", "bob", "carol"}
	bumped(t, s, TopicUsers, 0, func() error {
		err := s.ChangeUsers(ctx, logins, func(u *auth.User, exists bool) error {
			if exists != (u.Login == "alice") {
				t.Errorf("%s exists: %t", u.Login, exists)
			}
			if u.Note = "after"; u.Login == "carol" {
				return no
			}
			return nil
		})
		if !errors.Is(err, no) {
			t.Error(err)
		}
		return nil
	})
	if users, err := s.Users(ctx); err != nil || len(users) != 1 || users[0].Note != "before" {
		t.Errorf("got %v, %v", users, err)
	}
	bumped(t, s, TopicUsers, 1, func() error {
		return s.ChangeUsers(ctx, logins, func(u *auth.User, _ bool) error { u.Note = "after"; return nil })
	})
	users, err := s.Users(ctx)
	if err != nil || len(users) != 3 {
		t.Fatal(users, err)
	}
	for i, u := range users {
		if u.Login != logins[i] || u.Note != "after" {
			t.Errorf("%s: %q", u.Login, u.Note)
		}
	}
}

func TestKeys(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	key := Key{Domain: "example.com", Selector: "s1", Algorithm: "rsa", PEM: "-----BEGIN SECRET", Created: eventTime,
		State: keyring.State{Stage: keyring.New, Since: eventTime}}
	other := Key{Domain: "example.com", Selector: "s2", Algorithm: "ed25519", PEM: "x", State: key.State}
	bumped(t, s, TopicKeys, 1, func() error { return s.AddKeys(ctx, other) })
	exists := new(KeyExistsError)
	if err := s.AddKeys(ctx, key, other); !errors.As(err, &exists) || exists.Selector != "s2" {
		t.Errorf("one of them again: %v", err)
	}
	if err := s.AddKeys(ctx, key, key); !errors.As(err, &exists) || exists.Selector != "s1" {
		t.Errorf("one key twice: %v", err)
	}
	bumped(t, s, TopicKeys, 1, func() error { return s.AddKeys(ctx, key) })
	if keys, err := s.Keys(ctx); err != nil || !reflect.DeepEqual(keys, []Key{key, other}) {
		t.Errorf("got %v, %v", keys, err)
	}
	if err := s.AddKeys(ctx, Key{Domain: "example.com"}); err == nil {
		t.Error("a key without a selector was stored")
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key)
	if shown := fmt.Sprint(key) + log.String(); strings.Contains(shown, "SECRET") {
		t.Errorf("the private key is shown: %s", shown)
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	one, err := s.Secret(t.Context(), "pepper", 32)
	if err != nil || len(one) != 32 {
		t.Fatal(len(one), err)
	}
	beside := open(t, Options{Dir: dir})
	two, err := beside.Secret(t.Context(), "pepper", 32)
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("another process has another secret: %v", err)
	}
	if other, err := s.Secret(t.Context(), "other", 32); err != nil || bytes.Equal(one, other) {
		t.Errorf("the same secret under another name: %v", err)
	}
	if _, err := s.Secret(t.Context(), "pepper", 16); err == nil {
		t.Error("a secret of another length")
	}
}

func TestLimits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	ctx := t.Context()
	a := policy.State{Login: "alice", Limit: "60 messages/minute", Tokens: 12.25, At: eventTime,
		Full: eventTime.Add(time.Minute)}
	b := policy.State{Login: "bob", Limit: "60 messages/minute", Tokens: 1, At: eventTime,
		Full: eventTime.Add(time.Hour)}
	if err := s.SaveLimits(ctx, eventTime, []policy.State{a, b}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadLimits(ctx, eventTime); err != nil || !reflect.DeepEqual(got, []policy.State{a, b}) {
		t.Errorf("got %+v, %v", got, err)
	}
	a.Tokens = 0.5
	later := eventTime.Add(time.Minute)
	if got, err := s.LoadLimits(ctx, later); err != nil || !reflect.DeepEqual(got, []policy.State{b}) {
		t.Errorf("full ones are loaded: %+v, %v", got, err)
	}
	a.Full = later.Add(time.Second)
	if err := s.SaveLimits(ctx, later, []policy.State{a}); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveLimits(ctx, a.Full, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadLimits(ctx, eventTime); err != nil || !reflect.DeepEqual(got, []policy.State{b}) {
		t.Errorf("full ones are kept: %+v, %v", got, err)
	}
}

func TestKnownRecipients(t *testing.T) {
	s := open(t, Options{MaxKnown: 5})
	ctx := t.Context()
	fresh := func(login string, want int, addrs ...string) {
		t.Helper()
		if n, err := s.NewRecipients(ctx, login, addrs); err != nil || n != want {
			t.Errorf("%d of %q are new to %s, want %d: %v", n, addrs, login, want, err)
		}
	}
	remember := func(login string, now time.Time, addrs ...string) {
		t.Helper()
		if err := s.RememberRecipients(ctx, login, addrs, now); err != nil {
			t.Fatal(err)
		}
	}
	fresh("alice", 2, "a", "b")
	remember("alice", eventTime, "a", "b")
	fresh("alice", 1, "a", "b", "c")
	fresh("bob", 2, "a", "b")
	// The same people again cost nothing.
	commits := s.Commits()
	remember("alice", eventTime.Add(time.Minute), "a", "b")
	if s.Commits() != commits {
		t.Error("known recipients were written again")
	}
	// The one not used for longest goes first.
	remember("alice", eventTime.Add(2*time.Hour), "a")
	remember("alice", eventTime.Add(3*time.Hour), "c", "d", "e", "f")
	fresh("alice", 0, "a", "c", "d", "e", "f")
	fresh("alice", 1, "b")
	remember("bob", eventTime, "x")
	if n, err := s.ForgetRecipients(ctx, eventTime.Add(150*time.Minute)); err != nil || n != 2 {
		t.Errorf("%d were forgotten, want 2: %v", n, err)
	}
	fresh("alice", 1, "a", "c")
	fresh("bob", 1, "x")
	// The bound counts what is there.
	remember("alice", eventTime.Add(4*time.Hour), "g")
	fresh("alice", 0, "c", "d", "e", "f", "g")
	if err := s.AddUser(ctx, auth.User{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteUser(ctx, "alice", nil); err != nil {
		t.Fatal(err)
	}
	fresh("alice", 5, "c", "d", "e", "f", "g")
}

func TestForgetMany(t *testing.T) {
	s := open(t, Options{})
	var addrs []string
	for n := range 2*actionBatch + 3 {
		addrs = append(addrs, fmt.Sprint(n))
	}
	if err := s.RememberRecipients(t.Context(), "alice", addrs, eventTime); err != nil {
		t.Fatal(err)
	}
	if n, err := s.ForgetRecipients(context.Background(), eventTime.Add(time.Second)); err != nil ||
		n != int64(len(addrs)) {
		t.Errorf("%d of %d were forgotten: %v", n, len(addrs), err)
	}
}
