//go:build unix

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testkit"
)

// manager is what systemd is to a service: it is told things, and keeps sockets.
type manager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
	kept   []*os.File
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if m.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.socket.Close(); m.drop() })
	return m
}

// told waits for a message, and keeps the sockets that come before or with it.
func (m *manager) told(want string) {
	m.t.Helper()
	text, rights := make([]byte, 1024), make([]byte, 1024)
	for {
		m.socket.SetReadDeadline(time.Now().Add(patience))
		n, rn, _, _, err := m.socket.ReadMsgUnix(text, rights)
		if err != nil {
			m.t.Fatalf("systemd was never told %s: %v", want, err)
		}
		said := string(text[:n])
		if strings.Contains(said, "FDSTORE=1") {
			m.keep(said, rights[:rn])
		}
		if strings.Contains(said, "FDSTOREREMOVE=1") {
			m.drop()
		}
		if strings.Contains(said, want) {
			return
		}
	}
}

func (m *manager) keep(said string, rights []byte) {
	m.t.Helper()
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		m.t.Fatalf("%q came with %v, %v", said, messages, err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 || !strings.Contains(said, "\nFDNAME=listener") {
		m.t.Fatalf("%q came with %v, %v", said, fds, err)
	}
	m.kept = append(m.kept, os.NewFile(uintptr(fds[0]), "listener"))
}

func (m *manager) drop() {
	for _, f := range m.kept {
		f.Close()
	}
	m.kept = nil
}

// start starts the daemon as systemd does, with what is kept.
func (m *manager) start(o *office) *exec.Cmd {
	m.t.Helper()
	// The variable names the process that the sockets are for.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, testkit.Binary(m.t), "serve", "--config",
		o.config)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path, fmt.Sprintf("LISTEN_FDS=%d", len(m.kept)),
		"LISTEN_FDNAMES=listener")
	cmd.ExtraFiles = m.kept
	cmd.Stderr = m.t.Output()
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// A client that comes while there is no daemon waits, and is served by the next. A listener that the configuration has
// no more is gone then, although its socket was kept.
func TestRestartRefusesNobody(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	gone := fmt.Sprintf("localhost:%d", testkit.FreePort(t))
	config, err := os.ReadFile(o.config)
	if err != nil {
		t.Fatal(err)
	}
	o.write("relay.toml", string(config)+fmt.Sprintf("[[listener]]\nname = \"gone\"\naddress = %q\n", gone))
	m := newManager(t)
	first := m.start(o)
	m.told("READY=1")
	first.Process.Signal(syscall.SIGTERM)
	m.told("STOPPING=1")
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	for len(m.kept) < 2 {
		m.told("FDSTORE=1")
	}
	o.write("relay.toml", string(config))
	o.postern("", "check", "--starting") // as the unit does, while systemd has the sockets
	waiting, err := net.Dial("tcp", o.address)
	if err != nil {
		t.Fatalf("between two daemons: %v", err)
	}
	defer waiting.Close()
	second := m.start(o)
	m.told("READY=1")
	waiting.SetReadDeadline(time.Now().Add(patience))
	if greeting, err := bufio.NewReader(waiting).ReadString('\n'); !strings.HasPrefix(greeting, "220 ") {
		t.Errorf("whoever waited is answered %q, %v", greeting, err)
	}
	if len(m.kept) != 0 {
		t.Error("sockets are held open in vain")
	}
	if c, err := net.Dial("tcp", gone); err == nil {
		c.Close()
		t.Error("a listener that is gone accepts")
	}
	second.Process.Signal(syscall.SIGTERM)
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
}
