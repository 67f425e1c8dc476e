package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/relay/keyring"
)

func testKey(domain, selector, algorithm string, stage keyring.Stage) Key {
	return Key{Domain: domain, Selector: selector, Algorithm: algorithm, PEM: testPEM, Created: eventTime,
		State: keyring.State{Stage: stage, Since: eventTime}}
}

func stagesOf(t *testing.T, s *Store) string {
	t.Helper()
	keys, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, k := range keys {
		if k.PEM != testPEM {
			t.Errorf("%s has another private half", k)
		}
		list = append(list, k.Selector+"="+string(k.Stage))
	}
	return strings.Join(list, " ")
}

// Keys of an earlier version sign as they did: of several of an algorithm the first by selector.
func TestKeysOfAnEarlierVersion(t *testing.T) {
	fileOnly(t)
	whole := migrations
	i := slices.Index(migrations, migration{both: schemaKeyStages})
	migrations = migrations[:i:i]
	t.Cleanup(func() { migrations = whole })
	dir := t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true, moving: true})) // that version knew nothing of it
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	script := ""
	for _, k := range []Key{{Domain: "a.example", Selector: "r1", Algorithm: "rsa-2048"}, {Domain: "a.example",
		Selector: "r2", Algorithm: "rsa-2048"}, {Domain: "a.example", Selector: "s3", Algorithm: "ed25519"},
		{Domain: "b.example", Selector: "r9", Algorithm: "rsa-2048"}} {
		script += fmt.Sprintf("INSERT INTO dkim_key VALUES ('%s', '%s', '%s', '%s', %d);", k.Domain, k.Selector,
			k.Algorithm, testPEM, unixNano(eventTime))
	}
	fileOnly(t)
	raw(t, filepath.Join(dir, FileName), script)
	migrations = whole
	s = open(t, Options{Dir: dir, Daemon: true})
	if got := stagesOf(t, s); got != "r1=signing r2=retiring s3=signing r9=signing" {
		t.Error(got)
	}
	keys, _ := s.Keys(t.Context())
	if !keys[0].Since.Equal(eventTime) || time.Since(keys[1].Since).Abs() > time.Hour {
		t.Errorf("since %s and %s", keys[0].Since, keys[1].Since)
	}
}

func TestKeyStatesAreKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if err := s.AddKeys(t.Context(), testKey("a.example", "r1", "rsa-2048", keyring.New)); err != nil {
		t.Fatal(err)
	}
	want := keyring.State{Stage: keyring.New, Since: eventTime, Looked: eventTime.Add(1), Silent: true,
		Found: keyring.Differs, FoundSince: eventTime.Add(2), FoundLast: eventTime.Add(3), Detail: "ns1 has another"}
	look := func(keys []Key) error { keys[0].State = want; return nil }
	bumped(t, s, TopicKeys, 0, func() error { return s.ChangeKeys(t.Context(), look) })
	failed := errors.New("no")
	err := s.ChangeKeys(t.Context(), func(keys []Key) error { keys[0].Stage = keyring.Signing; return failed })
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	other := open(t, Options{Dir: dir})
	if keys, err := other.Keys(t.Context()); err != nil || keys[0].State != want {
		t.Errorf("%+v, %v", keys, err)
	}
	bumped(t, other, TopicKeys, 1, func() error {
		return s.ChangeKeys(t.Context(), func(keys []Key) error { keys[0].Stage = keyring.Published; return nil })
	})
}

// A key that signs at once takes the place of the one of its algorithm, in the same transaction.
func TestAddKeysThatSign(t *testing.T) {
	s := open(t, Options{})
	add := func(keys ...Key) {
		t.Helper()
		if err := s.AddKeys(t.Context(), keys...); err != nil {
			t.Fatal(err)
		}
	}
	add(testKey("a.example", "r1", "rsa-2048", keyring.Signing), testKey("a.example", "e1", "ed25519", keyring.Signing))
	add(testKey("b.example", "r5", "rsa-2048", keyring.Signing))
	before := testKey("a.example", "r2", "rsa-2048", keyring.Signing)
	before.Created = eventTime.Add(-time.Hour) // the clock went back
	add(before)
	if got := stagesOf(t, s); got != "e1=signing r1=retiring r2=signing r5=signing" {
		t.Error(got)
	}
	if keys, _ := s.Keys(t.Context()); !keys[2].Created.After(keys[1].Created) {
		t.Error("a key made while the clock was behind counts as older")
	}
	if err := s.AddKeys(t.Context(), testKey("c.example", "r1", "rsa-2048", keyring.Retiring)); err == nil {
		t.Error("a new key may retire")
	}
	if err := s.AddKeys(t.Context(), testKey("c.example", "r1", "rsa-2048", "")); err == nil {
		t.Error("a new key may have no stage")
	}
}

func TestRemoveKey(t *testing.T) {
	s := open(t, Options{})
	if err := s.AddKeys(t.Context(), testKey("a.example", "r1", "rsa-2048", keyring.New),
		testKey("a.example", "r2", "rsa-2048", keyring.New)); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if _, err := s.RemoveKey(t.Context(), "a.example", "r1", func(Key, []Key) error { return no }); !errors.Is(err,
		no) {
		t.Error(err)
	}
	yes := func(k Key, all []Key) error {
		if k.Selector != "r1" || len(all) != 2 {
			t.Errorf("%s of %v", k, all)
		}
		return nil
	}
	bumped(t, s, TopicKeys, 1, func() error {
		found, err := s.RemoveKey(t.Context(), "a.example", "r1", yes)
		if !found {
			t.Error("it is not found")
		}
		return err
	})
	if found, err := s.RemoveKey(t.Context(), "a.example", "r1", yes); found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
	if got := stagesOf(t, s); got != "r2=new" {
		t.Error(got)
	}
}

// Two processes see the same keys and change them: each change is made on what the other left.
func TestKeysOfTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	stores := []*Store{open(t, Options{Dir: dir, Daemon: true}), open(t, Options{Dir: dir})}
	busy := errors.New("one waits already")
	var all sync.WaitGroup
	var made, refused atomic.Int32
	for i := range 12 {
		all.Go(func() {
			err := stores[i%2].AdmitKeys(t.Context(), func(there []Key) error {
				if len(there) > 0 {
					return busy
				}
				return nil
			}, testKey("a.example", fmt.Sprint("r", i), "rsa-2048", keyring.New))
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, busy):
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || refused.Load() != 11 {
		t.Errorf("%d made, %d refused", made.Load(), refused.Load())
	}
	reset := func(keys []Key) error { keys[0].Looked = eventTime; return nil }
	if err := stores[0].ChangeKeys(t.Context(), reset); err != nil {
		t.Fatal(err)
	}
	const rounds = 40
	for i := range rounds {
		all.Go(func() {
			err := stores[i%2].ChangeKeys(t.Context(), func(keys []Key) error {
				keys[0].Looked = keys[0].Looked.Add(time.Second)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if keys, err := stores[1].Keys(t.Context()); err != nil ||
		!keys[0].Looked.Equal(eventTime.Add(rounds*time.Second)) {
		t.Errorf("%v, %v", keys, err)
	}
}

// What is known of keys of relay.toml stays over a restart, and goes with the key.
func TestConfiguredKeysOfTheStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	key := func(selector string) Key {
		return Key{Domain: "example.com", Selector: selector, Algorithm: "ed25519", Record: "v=DKIM1; p=" + selector,
			State: keyring.State{Stage: keyring.Signing, Looked: eventTime, Found: keyring.Absent,
				FoundSince: eventTime.Add(-time.Hour), FoundLast: eventTime, Detail: "no record"}}
	}
	put := func(want ...Key) {
		t.Helper()
		err := s.ChangeConfiguredKeys(t.Context(), func([]Key) []Key { return want })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Options{Dir: dir})
		if got, err := s.ConfiguredKeys(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	put(key("a"), key("b"))
	changed := key("b")
	changed.Silent, changed.Record = true, "v=DKIM1; p=another"
	put(changed)
	put()
}
