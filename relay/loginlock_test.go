package relay

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"postern/operate"
	"postern/relay/config"
)

// TestLockElsewhere: an operator locks a login of a password file, which holds at once also for an open session, and
// unlocks it.
func TestLockElsewhere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("bert@example.com:"+bcryptRight+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, newProvider(t), fmt.Sprintf("[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = %q\n", path))
	ops := operate.New(operate.Options{Store: r.server.store,
		Config: func() *config.Config { return r.server.state.Load().config }})
	root := operate.Actor{Name: "root", Channel: operate.CommandLine}
	c, err := r.loggedIn("bert@example.com", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.adopts(func() {
		if err := ops.Accounts.Lock(t.Context(), root, "Bert@example.com", "lost laptop"); err != nil {
			t.Fatal(err)
		}
	})
	wantCode(t, "a new session", r.tryLogin("bert@example.com", "right"), 535)
	wantCode(t, "an open session", c.Mail("bert@example.com", nil), 421)
	locked, err := ops.Accounts.LockedElsewhere(t.Context(), root, operate.Everybody)
	if err != nil || len(locked) != 1 || locked[0].Login != "bert@example.com" || locked[0].Reason != "lost laptop" {
		t.Errorf("%+v, %v", locked, err)
	}
	if u, err := ops.Accounts.Unlock(t.Context(), root, "bert@example.com"); err != nil || !u.Account {
		t.Fatalf("%+v, %v", u, err)
	}
	r.eventually("it may log in", func() bool { return r.tryLogin("bert@example.com", "right") == nil })
}

// TestLockOfAListenersLogin: who is let in by their network as a login of another source is kept out while it is
// locked, and so is who was let in before.
func TestLockOfAListenersLogin(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("bert@example.com:"+bcryptRight+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, newProvider(t), fmt.Sprintf(`listener:auth = "network"
		listener:networks = ["127.0.0.0/8"]
		listener:login = "bert@example.com"
		[[auth.source]]
		[[auth.source]]
		type = "file"
		path = %q`, path))
	ops, root := r.operations(), operate.Actor{Name: "root", Channel: operate.CommandLine}
	open := r.raw()
	open.cmd(250, "MAIL FROM:<bert@example.com>")
	open.cmd(250, "RCPT TO:<bob@example.net>")
	moments["before the final dot"](open, func() {
		r.adopts(func() {
			if err := ops.Accounts.Lock(t.Context(), root, "bert@example.com", "printer is gone"); err != nil {
				t.Fatal(err)
			}
		})
	}, 421)
	conn, err := net.Dial("tcp", r.server.Addresses()["submission"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&lineClient{t: t, conn: conn, in: bufio.NewReader(conn)}).expect("421 ")
	r.adopts(func() {
		if _, err := ops.Accounts.Unlock(t.Context(), root, "bert@example.com"); err != nil {
			t.Fatal(err)
		}
	})
	r.raw().cmd(250, "MAIL FROM:<bert@example.com>")
}
