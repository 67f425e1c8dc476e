//go:build unix

// Package run measures Postern beside Postfix, in turn: the same duties, machine, load and sink. It starts private
// instances in a temporary directory, on loopback, and ends what it started.
//
// Failure semantics: a figure counts only if the ledger proves that every accepted message arrived once and unchanged;
// otherwise the run fails. It says which systems are not installed and omits them.
package run

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"postern/bench/sink"
	"postern/internal/testkit/pki"
)

// The names of every measurement. Everything is on loopback and gone afterwards.
const (
	login            = "bench"
	sender           = "bench@example.com"
	backlogSender    = "backlog@example.com"
	recipient        = "sink@example.net"
	upstreamLogin    = "relay@example.com"
	sinkName         = "sink.example.com"
	relayName        = "relay.example.com"
	selector         = "bench"
	domain           = "example.com"
	upstreamSessions = 20
	startLimit       = 60 * time.Second
)

// System is a relay under test.
type System interface {
	Name() string
	// Installed returns nil if the system can be run here, else why not.
	Installed() error
	// Start starts it, waits until it greets at Addr, and returns the time from the start of its server process.
	Start(ctx context.Context, e *Environment, g *Group, o StartOptions) (time.Duration, error)
	// Stop ends it gracefully. The group kills what is left.
	Stop() error
	Addr() string
	// Explain describes a system that does not deliver. It may end it.
	Explain() string
}

// StartOptions configures a start.
type StartOptions struct {
	Fresh bool     // with an empty queue; else as the last run of this environment left it
	Wrap  []string // a command to run the server with, such as strace with its options
}

// Environment is what both systems share: a directory, certificates, secrets, and the sink.
type Environment struct {
	Dir          string
	CA           *pki.CA
	CAFile       string
	Cert         pki.Cert // of the relay
	CertFile     string
	KeyFile      string
	Password     string
	SinkPassword string
	Sink         *sink.Sink
}

// NewEnvironment makes the directory and starts the sink.
func NewEnvironment(ctx context.Context, dir string) (*Environment, error) {
	e := &Environment{Dir: dir, Password: "local-bench-password-of-28", SinkPassword: "local-sink-password"}
	var err error
	if e.CA, err = pki.NewCA(); err != nil {
		return nil, err
	}
	e.CAFile = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(e.CAFile, e.CA.PEM, 0o644); err != nil {
		return nil, err
	}
	if e.Cert, err = e.CA.Leaf(pki.Options{Names: []string{relayName, "127.0.0.1"}}); err != nil {
		return nil, err
	}
	if e.CertFile, e.KeyFile, err = e.Cert.Write(dir); err != nil {
		return nil, err
	}
	leaf, err := e.CA.Leaf(pki.Options{Names: []string{sinkName, "localhost", "127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	e.Sink, err = sink.Start(ctx, sink.Options{
		TLS: leaf.Server(), Hostname: sinkName, Username: upstreamLogin, Password: e.SinkPassword,
	})
	return e, err
}

// Close ends the sink.
func (e *Environment) Close() { e.Sink.Close() }

// clientTLS is the TLS configuration of the load generator. Both systems must do the same handshake: Postern also
// offers a post-quantum key exchange, which doubles the cost for both sides, but OpenSSL 3.0, with which Postfix is
// measured, does not.
func (e *Environment) clientTLS() *tls.Config {
	c := e.CA.Client(relayName)
	c.CurvePreferences = []tls.CurveID{tls.X25519}
	return c
}

// greeted waits until a server greets.
func greeted(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if last = greeting(addr); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not greet: %w", addr, errors.Join(last, ctx.Err()))
}

func greeting(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	var b [3]byte
	if _, err := c.Read(b[:]); err != nil {
		return err
	}
	if string(b[:]) != "220" {
		return fmt.Errorf("greeting begins with %q", b)
	}
	c.Write([]byte("QUIT\r\n"))
	c.Read(b[:])
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// wrapped runs a command with another in front of it.
func (g *Group) wrapped(wrap []string, path string, args ...string) *exec.Cmd {
	if len(wrap) == 0 {
		return g.Command(path, args...)
	}
	return g.Command(wrap[0], append(append(append([]string(nil), wrap[1:]...), path), args...)...)
}

// needTools reports which of some programs are missing.
func needTools(names ...string) error {
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not installed: %s", strings.Join(missing, ", "))
	}
	return nil
}

// output runs a command and returns its output, also in the error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), nil
}
