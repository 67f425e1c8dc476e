//go:build unix

package run

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/pgserver"
)

// Postern is the project's own server, built from this tree.
type Postern struct {
	Binary  string
	Handoff string // "0s": durable before 250; "": the default
	Flavour string // shown after the name
	Search  bool   // with an API, for people who search

	Unsigned bool // the upstream has dkim = "skip"
	OpenSSL  bool // the binary is that of BuildOpenSSL

	// Database has the store at a PostgreSQL of its own, whose processes count as Postern's.
	Database bool
	Second   *Postern // a second node at that database, or nil

	database  *pgserver.Server
	group     *Group
	dir       string
	port      int
	adminPort int
	cmd       *exec.Cmd
	ended     chan struct{}
}

// Name implements System.
func (p *Postern) Name() string { return strings.TrimSpace("Postern " + p.Flavour) }

// Addr implements System.
func (p *Postern) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// Installed implements System.
func (p *Postern) Installed() error {
	_, err := os.Stat(p.Binary)
	if err == nil && p.Database {
		_, err = pgserver.Tool("postgres")
	}
	return err
}

// Start implements System.
func (p *Postern) Start(ctx context.Context, e *Environment, g *Group, o StartOptions) (time.Duration, error) {
	p.group, p.dir = g, filepath.Join(e.Dir, "postern")
	if o.Fresh || p.port == 0 {
		if err := p.startDatabase(ctx, e); err != nil {
			return 0, err
		}
		if err := p.configure(e); err != nil {
			return 0, err
		}
		if err := p.addUser(e); err != nil {
			return 0, err
		}
	}
	took, err := p.serve(ctx, o)
	if err == nil && p.Second != nil {
		err = p.startSecond(ctx, e, o)
	}
	return took, err
}

// startDatabase starts an empty PostgreSQL, with the settings that it is delivered with.
func (p *Postern) startDatabase(ctx context.Context, e *Environment) (err error) {
	if !p.Database {
		return nil
	}
	if p.database, err = pgserver.Start(ctx, e.Dir); err != nil {
		return err
	}
	p.group.AtEnd(p.database.Close)
	return p.group.Adopt(p.database.Pid())
}

func (p *Postern) startSecond(ctx context.Context, e *Environment, o StartOptions) error {
	s := p.Second
	s.Binary, s.Handoff, s.database, s.group = p.Binary, p.Handoff, p.database, p.group
	s.dir = filepath.Join(e.Dir, "postern-second")
	if o.Fresh || s.port == 0 {
		if err := s.configure(e); err != nil {
			return err
		}
	}
	_, err := s.serve(ctx, o)
	return err
}

// serve starts the server process.
func (p *Postern) serve(ctx context.Context, o StartOptions) (time.Duration, error) {
	g := p.group
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	p.cmd = g.wrapped(o.Wrap, p.Binary, "serve", "--config", p.config())
	p.ended = make(chan struct{})
	p.cmd.Stdout, p.cmd.Stderr = log, log
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
	g.Add(p.cmd.Process.Pid)
	if err := greeted(ctx, p.Addr()); err != nil {
		tail, _ := os.ReadFile(p.logFile())
		return 0, fmt.Errorf("%w\n%s", err, lastLines(string(tail), 20))
	}
	return time.Since(begin), nil
}

// Stop implements System. What the server took for an error fails the run: it may not be faster by leaving out what it
// should do, such as the trace.
func (p *Postern) Stop() error {
	p.signal(syscall.SIGTERM)
	var complaints []error
	for _, n := range []*Postern{p, p.Second} {
		if n == nil {
			continue
		}
		select {
		case <-n.ended:
		case <-time.After(startLimit):
			return fmt.Errorf("%s does not end after SIGTERM", p.Name())
		}
		complaints = append(complaints, n.complaint())
	}
	return errors.Join(complaints...)
}

// complaint is the first error of the log.
func (p *Postern) complaint() error {
	log, err := os.Open(p.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := lines.Text(); strings.Contains(line, " level=ERROR ") {
			return fmt.Errorf("%s logged an error: %s", p.Name(), line)
		}
	}
	return lines.Err()
}

// signal sends a signal to the group, also behind a wrapping command, but not to the database.
func (p *Postern) signal(s syscall.Signal) {
	var spared []int
	if p.database != nil {
		spared = descendants([]int{p.database.Pid()})
	}
	for _, pid := range p.group.Pids() {
		if !slices.Contains(spared, pid) {
			syscall.Kill(pid, s)
		}
	}
}

// Explain implements System: the queue, the log, and the stacks of all goroutines.
func (p *Postern) Explain() string {
	queue, err := output(exec.Command(p.Binary, "queue", "list", "--config", p.config()))
	if err != nil {
		queue += err.Error()
	}
	p.signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
	}
	log, _ := os.ReadFile(p.logFile())
	return fmt.Sprintf("queue:\n%s\nlog:\n%s", firstLines(queue, 10), lastLines(string(log), 1000))
}

func (p *Postern) config() string  { return filepath.Join(p.dir, "relay.toml") }
func (p *Postern) logFile() string { return filepath.Join(p.dir, "log") }

func (p *Postern) configure(e *Environment) error {
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "data"), 0o700); err != nil {
		return err
	}
	key, err := dkimKey()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.dir, "dkim.pem"), key, 0o600); err != nil {
		return err
	}
	if p.port, err = freePort(); err != nil {
		return err
	}
	if p.adminPort, err = freePort(); err != nil {
		return err
	}
	return os.WriteFile(p.config(), []byte(p.toml(e)), 0o600)
}

func (p *Postern) addUser(e *Environment) error {
	add := exec.Command(p.Binary, "user", "add", login, "--password-stdin",
		"--sender", sender, "--sender", backlogSender, "--config", p.config())
	add.Stdin = strings.NewReader(e.Password + "\n")
	_, err := output(add)
	return err
}

// perConnection is practically no limit, since Postfix has none: it closes connections by time. With the default of
// 100, an upstream 50 ms away costs some 6 % for reconnecting and logging in.
const perConnection = 100_000

func (p *Postern) toml(e *Environment) string {
	_, sinkPort, _ := strings.Cut(e.Sink.Addr(), ":")
	handoff := ""
	if p.Handoff != "" {
		handoff = "handoff = " + strconv.Quote(p.Handoff) + "\n"
	}
	admin := ""
	if p.Search {
		admin = fmt.Sprintf("127.0.0.1:%d", p.adminPort)
	}
	key, skip := fmt.Sprintf("\n[[dkim]]\ndomain = %q\nselector = %q\nkey_file = %q\n", domain, selector,
		filepath.Join(p.dir, "dkim.pem")), ""
	if p.Unsigned {
		key, skip = "", "dkim = \"skip\"\n"
	}
	upstream := func(name, port string) string {
		return fmt.Sprintf(`
[[upstream]]
name = %q
provider = "generic"
host = "127.0.0.1"
port = %s
tls = "starttls"
ca_file = %q
username = %q
password = %q
max_connections = %d
messages_per_connection = %d
%s`, name, port, e.CAFile, upstreamLogin, e.SinkPassword, upstreamSessions, perConnection, skip)
	}
	return fmt.Sprintf(`hostname = %q
data_dir = %q

[tls]
cert_file = %q
key_file = %q

[[listener]]
name = "submission"
address = %q
tls = "starttls"
max_connections = 5000
max_connections_per_ip = 5000
%s
[[policy]]
limits = []
`, relayName, filepath.Join(p.dir, "data"), e.CertFile, e.KeyFile, p.Addr(), handoff) + key +
		upstream("sink", sinkPort) +
		upstream("dead", "9") + // discard: nobody listens on loopback
		fmt.Sprintf(`
[[route]]
senders = [%q]
upstreams = ["dead"]

[[route]]
upstreams = ["sink"]

[admin]
address = %q
`, backlogSender, admin) + p.store()
}

// sealKey is what the nodes of a measurement share.
var sealKey = func() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}()

func (p *Postern) store() string {
	if p.database == nil {
		return ""
	}
	return fmt.Sprintf("\n[store]\nurl = %q\nseal_key = %q\nnode = %q\n", p.database.URL(), sealKey,
		filepath.Base(p.dir))
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func firstLines(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[:min(n, len(lines))], "\n")
}
