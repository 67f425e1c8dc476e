package relay

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/fakesmtp"
	"postern/internal/testkit"
	"postern/relay/config"
	"postern/relay/keyring"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// provider is an upstream: every hook may refuse, wait or look.
type provider struct {
	t       *testing.T
	fake    *fakesmtp.Server
	address string
	caFile  string

	onAuth func(user, password string) error
	onMail func(from string) error
	onRcpt func(to string) error
	onNull func() error // at RCPT, of mail with a null reverse-path
	onData func(m received) error

	mu       sync.Mutex
	messages []received
	changed  chan struct{}
}

// received is a message that the provider took, or was offered in onData.
type received struct {
	from string
	to   []string
	data string
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{t: t, changed: make(chan struct{})}
	ca := testkit.NewCA(t)
	p.caFile = ca.File
	fake := fakesmtp.New(fakesmtp.Config{
		Hostname: "provider.example.net", TLS: ca.Leaf(testkit.LeafOptions{}).Server(),
		Extensions: fakesmtp.Without("DSN"), Mechanisms: []string{"PLAIN"}, Login: p.login, Hook: p.hook, Take: p.take,
	})
	if _, err := fake.Listen(); err != nil {
		t.Fatal(err)
	}
	p.fake, p.address = fake, fake.Addr()
	t.Cleanup(fake.Close)
	return p
}

// patience is how long a test waits for what must come. Nothing waits for its end but what fails.
const patience = time.Minute

// wait returns the first n messages, failing the test when they do not come.
func (p *provider) wait(n int) []received {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		have, changed := p.messages, p.changed
		p.mu.Unlock()
		if len(have) >= n {
			return have
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("the provider has %d messages, want %d", len(have), n)
		}
	}
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.messages)
}

func (p *provider) login(_ *fakesmtp.Session, _, user, password string) (refusal string) {
	if p.onAuth != nil {
		return replyOf(p.onAuth(user, password))
	}
	if user != "relay" || password != "upstream secret" {
		return "535 5.7.8 wrong"
	}
	return ""
}

func (p *provider) hook(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
	var err error
	switch address, _, _ := fakesmtp.Path(line); {
	case verb == "MAIL" && p.onMail != nil:
		err = p.onMail(address)
	case verb == "RCPT":
		if from, _, _ := fakesmtp.Path(s.Message().From); from == "" && p.onNull != nil {
			err = p.onNull()
		}
		if err == nil && p.onRcpt != nil {
			err = p.onRcpt(address)
		}
	}
	return fakesmtp.Action{Reply: replyOf(err)}
}

func (p *provider) take(_ *fakesmtp.Session, taken fakesmtp.Message) fakesmtp.Action {
	m := received{data: string(taken.Data)}
	m.from, _, _ = fakesmtp.Path(taken.From)
	for _, argument := range taken.To {
		to, _, _ := fakesmtp.Path(argument)
		m.to = append(m.to, to)
	}
	if p.onData != nil {
		if err := p.onData(m); err != nil {
			return fakesmtp.Action{Reply: replyOf(err)}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, m)
	close(p.changed)
	p.changed = make(chan struct{})
	return fakesmtp.Action{}
}

func replyOf(err error) string {
	e, ok := errors.AsType[*smtp.SMTPError](err)
	switch {
	case err == nil:
		return ""
	case !ok:
		return "451 4.0.0 " + err.Error()
	case e.EnhancedCode == smtp.NoEnhancedCode:
		return fmt.Sprintf("%d %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%d %d.%d.%d %s", e.Code, e.EnhancedCode[0], e.EnhancedCode[1], e.EnhancedCode[2], e.Message)
}

func refusal(code int, enhanced smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}

// rig is a relay in this process between a client and a provider.
type rig struct {
	t        *testing.T
	dir      string
	database string // URL of testkit; "": the store is a file, unless onPostgreSQL
	node     string // its name at the database; "": node-1
	provider *provider
	server   *Server
	log      *testkit.Log
	dns      keyring.Lookup
	roots    *x509.CertPool
	stop     context.CancelFunc
	done     chan error
}

const (
	rigLogin    = "anna@example.com"
	rigPassword = "correct horse battery"
	rigPoll     = 20 * time.Millisecond
)

// newRig starts a relay. extra is added to relay.toml; lines of the [[listener]] and [[upstream]] blocks
// come from listener and upstream.
func newRig(t *testing.T, p *provider, extra string) *rig {
	t.Helper()
	return newRigAt(t, p, "", extra)
}

// newRigAt is newRig with a database.
func newRigAt(t *testing.T, p *provider, database, extra string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), database: database, provider: p, log: &testkit.Log{}}
	r.write(extra)
	r.addUser(auth.User{Login: rigLogin})
	r.start()
	t.Cleanup(r.close)
	return r
}

// beside starts another node at the database of a relay.
func (r *rig) beside(node, extra string) *rig {
	r.t.Helper()
	other := &rig{t: r.t, dir: r.t.TempDir(), database: r.database, node: node, provider: r.provider,
		log: &testkit.Log{}}
	other.write(extra)
	other.start()
	r.t.Cleanup(other.close)
	return other
}

func (r *rig) path() string { return filepath.Join(r.dir, "relay.toml") }

// write writes relay.toml. A "listener:" line prefix puts the line into the listener's block, an
// "upstream:" prefix into the upstream's.
func (r *rig) write(extra string) {
	r.t.Helper()
	_, port, err := net.SplitHostPort(r.provider.address)
	if err != nil {
		r.t.Fatal(err)
	}
	var listener, upstream, rest strings.Builder
	for line := range strings.SplitSeq(extra, "\n") {
		line = strings.TrimSpace(line)
		if l, ok := strings.CutPrefix(line, "listener:"); ok {
			fmt.Fprintln(&listener, l)
		} else if u, ok := strings.CutPrefix(line, "upstream:"); ok {
			fmt.Fprintln(&upstream, u)
		} else {
			fmt.Fprintln(&rest, line)
		}
	}
	if !strings.Contains(listener.String(), "handoff") { // a verdict is not late because the machine is slow
		fmt.Fprintf(&listener, "handoff = %q\n", patience.String())
	}
	text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"

[admin]
address = ""

[[listener]]
name = "submission"
address = "127.0.0.1:0"
tls = "starttls"
%s
[[upstream]]
name = "provider"
host = "127.0.0.1"
port = %s
ca_file = %q
username = "relay"
password = "upstream secret"
%s
%s`, &listener, port, r.provider.caFile, &upstream, r.withStore(rest.String()))
	if err := os.WriteFile(r.path(), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// The tests of a relay run on PostgreSQL where this variable is set, but for those of what only a file has.
func onPostgreSQL() bool { return os.Getenv("POSTERN_TEST_RELAY_ON_POSTGRESQL") != "" }

// fileOnly skips a test of a store that is a file.
func fileOnly(t *testing.T) {
	t.Helper()
	if onPostgreSQL() {
		t.Skip("this is of a file")
	}
}

// withStore adds to the blocks of relay.toml where the store is.
func (r *rig) withStore(blocks string) string {
	r.t.Helper()
	if r.database == "" && onPostgreSQL() {
		r.database = testkit.SharedPostgreSQL(r.t).NewDatabase(r.t)
	}
	if r.database == "" {
		return blocks
	}
	u, err := url.Parse(r.database)
	if err != nil {
		r.t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	keys := fmt.Sprintf("[store]\nurl = %q\npassword = %q\nseal_key = %q\nnode = %q\n", u, password, key,
		cmp.Or(r.node, "node-1"))
	if strings.Contains(blocks, "[store]\n") {
		return strings.Replace(blocks, "[store]\n", keys, 1)
	}
	return blocks + "\n" + keys
}

func (r *rig) load() (*config.Config, error) { return config.Load(r.path()) }

func (r *rig) start() {
	r.t.Helper()
	c, err := r.load()
	if err != nil {
		r.t.Fatal(err)
	}
	ready := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	r.server, err = New(ctx, Options{Config: c, Load: r.load, Ready: func() { close(ready) }, Poll: rigPoll,
		DNS: r.dns, Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		stop()
		r.t.Fatal(err)
	}
	r.stop, r.done = stop, make(chan error, 1)
	go func() { r.done <- r.server.Run(ctx) }()
	select {
	case <-ready:
	case err := <-r.done:
		r.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(r.dir, "data", "tls", "self-signed.crt"))
	if err != nil { // or the listeners have certificates of files
		ca, err = os.ReadFile(c.TLS.CertFile)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.roots = x509.NewCertPool()
	r.roots.AppendCertsFromPEM(ca)
}

func (r *rig) close() {
	if r.stop == nil {
		return
	}
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.stop = nil
	if r.t.Failed() {
		r.t.Log("log of the relay:\n" + r.log.String())
	}
}

// store opens the store beside the daemon, as the command line does.
func (r *rig) store() *relaystore.Store {
	r.t.Helper()
	c, err := config.Read(r.path())
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := relaystore.Open(r.t.Context(), relaystore.Of(c))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s
}

func (r *rig) addUser(u auth.User) {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	var err error
	if u.Hash, err = auth.HashChosen(rigPassword); err != nil {
		r.t.Fatal(err)
	}
	u.Created = time.Now()
	u.Changed = u.Created
	if err := s.AddUser(r.t.Context(), u); err != nil {
		r.t.Fatal(err)
	}
}

// client returns a client that is logged in.
func (r *rig) client(login string) *smtp.Client {
	r.t.Helper()
	c, err := smtp.DialStartTLS(r.server.Addresses()["submission"],
		&tls.Config{ServerName: "localhost", RootCAs: r.roots})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.Auth(sasl.NewPlainClient("", login, rigPassword)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// send submits a message and returns the reply to its last command.
func (r *rig) send(from string, to []string, message string) (reply string, err error) {
	r.t.Helper()
	c := r.client(rigLogin)
	defer c.Close() // a test that waits may send often, and one address has so many connections
	return sendOn(c, from, to, message)
}

func sendOn(c *smtp.Client, from string, to []string, message string) (string, error) {
	if err := c.Mail(from, nil); err != nil {
		return "", err
	}
	for _, a := range to {
		if err := c.Rcpt(a, nil); err != nil {
			return "", err
		}
	}
	w, err := c.Data()
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(w, strings.ReplaceAll(message, "\n", "\r\n")); err != nil {
		return "", err
	}
	resp, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	return resp.StatusText, nil
}

// events waits until the trace has at least one event of a kind and returns them.
func (r *rig) events(kind trace.Kind) []trace.Event {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	var events []trace.Event
	r.eventually("an event "+string(kind), func() bool {
		s.AwaitEvents(r.t.Context())
		var err error
		events, err = s.Events(r.t.Context(), trace.Query{Kinds: []trace.Kind{kind}})
		return err == nil && len(events) > 0
	})
	return events
}

// adopts makes a change of accounts and waits until the relay has taken it over, which a session asks for and a new
// login does not: the latter sees what the store has at once.
func (r *rig) adopts(change func()) {
	r.t.Helper()
	before := r.server.accounts.Generation()
	change()
	r.eventually("a change of accounts that is taken over", func() bool {
		return r.server.accounts.Generation() > before
	})
}

// eventually waits for a condition of the running relay.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			r.t.Fatalf("there never was %s", what)
		case <-tick.C:
		}
	}
}

// code returns the code of the reply that an error of the client carries, 250 for none.
func code(err error) int {
	var e *smtp.SMTPError
	switch {
	case err == nil:
		return 250
	case errors.As(err, &e):
		return e.Code
	}
	return 0
}

func (r *rig) tls() *tls.Config { return &tls.Config{ServerName: "localhost", RootCAs: r.roots} }

// anywhere is an address that has done nothing wrong yet.
func (r *rig) anywhere() netip.Addr { return netip.MustParseAddr("127.0.0.1") }

func mustPrefixes(texts ...string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, t := range texts {
		prefixes = append(prefixes, netip.MustParsePrefix(t))
	}
	return prefixes
}
