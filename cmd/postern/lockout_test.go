package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/auth"
	relaystore "postern/relay/store"
)

// TestListAndUnlockShowLockouts: the list of accounts says who is locked out for a while, and unlock takes addresses
// too.
func TestListAndUnlockShowLockouts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(config, []byte("hostname = \"relay.example.com\"\ndata_dir = "+
		"\"data\"\n[[upstream]]\nname = \"provider\"\nhost = \"smtp.example.net\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	created := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, u := range []auth.User{{Login: "anna"}, {Login: "ben", Locked: true, LockReason: "left"},
		{Login: "192.0.2.77"}} {
		u.Created, u.Changed = created, created
		if err := s.AddUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	until := time.Now().Add(time.Hour)
	prefix := netip.MustParsePrefix
	err = s.LoginLockout().Save(t.Context(), time.Now(), auth.Unsaved{Locks: []auth.Lock{
		{Client: prefix("192.0.2.1/32"), Until: until, Failures: 10}, {Client: prefix("192.0.2.77/32"), Until: until,
			Failures: 10},
		{Client: prefix("2001:db8:1:2::/64"), Until: until, Failures: 10},
		{Client: prefix("203.0.113.5/32"), Until: time.Now().Add(-time.Minute)},
		{Login: "anna", Until: until, Failures: 11}, {Login: "anna", Client: prefix("192.0.2.1/32"), Until: until,
			Failures: 12},
		{Login: "ben", Until: until, Failures: 11}, {Login: "nobody", Until: until, Failures: 11},
	}})
	if err != nil {
		t.Fatal(err)
	}
	postern := onConfig(config)
	left := func() int {
		out, err := postern("user", "list", "--json")
		if err != nil {
			t.Fatal(err, out)
		}
		var all []map[string]any
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatal(err, out)
		}
		n := 0
		for _, v := range all {
			if v["kind"] == "lockout" {
				n++
			}
		}
		if len(all) != n+3 {
			t.Errorf("%d of %d are lockouts: %s", n, len(all), out)
		}
		return n
	}
	if text, err := postern("user", "list"); err != nil || !strings.Contains(text, "Locked out for a while") ||
		!strings.Contains(text, "2001:db8:1:2::/64") || strings.Contains(text, "203.0.113.5") || left() != 7 {
		t.Fatalf("%v: %s", err, text)
	}
	for _, step := range []struct {
		who  string
		left int // lockouts; -1: refused
		says string
	}{
		{"2001:db8:1:2::99", 6, "2001:db8:1:2::/64 is unlocked, for every login"},
		{"192.0.2.1", 4, "192.0.2.1 is unlocked for login anna"},
		{"192.0.2.1", -1, "is not locked out"},
		{"anna", 3, "anna is unlocked."},
		{"ben", 2, "ben is unlocked."},
		{"nobody", 1, "nobody is unlocked."},
		{"nobody", -1, "there is no login nobody"},
		{"192.0.2.77", 0, "192.0.2.77 is unlocked."}, // a login and an address
		{"198.51.100.1:4711", -1, "is not locked out"},
		{"an na", -1, "did you mean anna?"},
	} {
		out, err := postern("user", "unlock", step.who)
		if (err != nil) != (step.left < 0) || err == nil && !strings.Contains(out, step.says) || err != nil &&
			!strings.Contains(err.Error(), step.says) {
			t.Errorf("unlock %s: %v, %q", step.who, err, out)
		}
		if n := left(); step.left >= 0 && n != step.left {
			t.Errorf("unlock %s leaves %d lockouts, want %d", step.who, n, step.left)
		}
	}
	if text, _ := postern("user", "list"); strings.Contains(text, "Locked out") {
		t.Errorf("nobody is locked out: %s", text)
	}
	ben, err := s.User(t.Context(), "ben")
	if err != nil || ben.Locked || ben.LockReason != "" || !ben.Changed.After(created) {
		t.Errorf("ben: %+v, %v", ben, err)
	}
	if anna, err := s.User(t.Context(), "anna"); err != nil || !anna.Changed.Equal(created) {
		t.Errorf("anna was not locked, and is changed: %+v, %v", anna, err)
	}
}
