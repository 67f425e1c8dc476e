package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestDevicesAreLearned: what a person who sets up devices types, and what they see.
func TestDevicesAreLearned(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	if _, _, err := l.run("device", "learn", "--network", "10.0.5.0/24"); err == nil ||
		!strings.Contains(err.Error(), `profile = "appliance"`) {
		t.Errorf("without a listener for it: %v", err)
	}
	l.file("relay.toml", `hostname = "relay.example.com"
data_dir = "data"
[[listener]]
name = "devices"
address = "127.0.0.1:2525"
profile = "appliance"
networks = ["10.0.5.0/24"]
[[upstream]]
name = "provider"
host = "smtp.example.net"
`)
	for _, c := range []struct{ args, want string }{
		{"device learn --network 10.0.5.0/24 --for 3h", "learn for 1m to 2h"},
		{"device learn --network 10.0.6.0/24", "not within the networks of listener devices"},
		{"device learn", "--network is missing"},
		{"device learn --network 10.0.5.0/24 --for soon", "--for"},
		{"device accept 10.0.5.31", "--sender"},
		{"device accept 192.0.2.1 --sender scans@example.com", "was not seen"},
		{"device accept printer", "no address"},
		{"device forget 10.0.5.31", "no device is proposed at 10.0.5.31"},
	} {
		if _, _, err := l.run(strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
	if _, _, err := l.run("device", "learn", "--network", "10.0.5.0/24"); err == nil ||
		!strings.Contains(err.Error(), "no domain is known") {
		t.Errorf("no device would be let in: %v", err)
	}
	l.ok("user", "add", "anna@example.com")
	say := func(want string, args ...string) {
		t.Helper()
		if out := l.ok(args...); !strings.Contains(out, want) {
			t.Errorf("%s:\n%s\nwant %q", args, out, want)
		}
	}
	say("may send to listener devices without login", "device", "learn", "--network", "10.0.5.0/24")
	say("Learning: devices of 10.0.5.0/24", "device", "list")
	said, _, _ := l.run("status") // nothing runs, so it is not well
	if !strings.Contains(said, "Learning: devices of 10.0.5.0/24 may send to listener devices without login until") {
		t.Errorf("status:\n%s", said)
	}
	say("Stopped: 1.", "device", "learn", "--stop")
	if out := l.ok("device", "list"); strings.Contains(out, "Learning:") {
		t.Errorf("it goes on:\n%s", out)
	}
	say("needs no login at listener devices", "device", "accept", "10.0.5.31", "scanner-2", "--sender",
		"scans@example.com")
	say("LAST SEEN", "device", "list")
	var listed []struct{ Kind, Login string }
	if err := json.Unmarshal([]byte(l.ok("device", "list", "--json")), &listed); err != nil || len(listed) != 1 ||
		listed[0].Kind != "device" || listed[0].Login != "scanner-2" {
		t.Errorf("%+v, %v", listed, err)
	}
	say("device accept", "audit")
}
