package smtp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/internal/testkit/pki"
	"postern/mail"
	"postern/relay/upstream"
)

const (
	user     = "relay@example.com"
	password = "correct horse"
)

// authority is made once: making keys costs time.
var authority = sync.OnceValue(func() *pki.CA {
	ca, err := pki.NewCA()
	if err != nil {
		panic(err)
	}
	return ca
})

func certificate(t testing.TB, until time.Time, names ...string) *tls.Config {
	t.Helper()
	cert, err := authority().Leaf(pki.Options{Names: names, NotAfter: until})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Server()
}

var goodTLS = sync.OnceValue(func() *tls.Config {
	cert, err := authority().Leaf(pki.Options{Names: []string{"127.0.0.1", "fake.example.com"}})
	if err != nil {
		panic(err)
	}
	return cert.Server()
})

// Not first inside a bubble of testing/synctest, whose clock is another.
func init() { goodTLS() }

// provider is a fake with TLS, AUTH and every extension.
func provider() fakesmtp.Config {
	return fakesmtp.Config{
		TLS: goodTLS(), Extensions: fakesmtp.Full,
		Mechanisms: []string{"PLAIN", "LOGIN"}, Users: map[string]string{user: password},
	}
}

// start runs a fake and makes an Upstream for it. change may be nil.
func start(t testing.TB, fc fakesmtp.Config, change func(*Config)) (*fakesmtp.Server, *Upstream) {
	t.Helper()
	fake := fakesmtp.New(fc)
	port, err := fake.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cfg := whole(Config{Host: "127.0.0.1", Port: port, LocalName: "relay.example.com", Password: password})
	cfg.RootCAs, cfg.Username = authority().Pool, user
	if fc.Implicit {
		cfg.TLS = upstream.TLSImplicit
	}
	if fc.TLS == nil {
		cfg.TLS = upstream.TLSNone
	}
	if change != nil {
		change(&cfg)
	}
	return fake, newUpstream(t, cfg)
}

// startPiped is start over connections in memory, which hold the same on every machine, and inside a bubble of
// testing/synctest, whose clock certificates have to suit.
func startPiped(t testing.TB, fc fakesmtp.Config, change func(*Config)) (*fakesmtp.Server, *Upstream) {
	t.Helper()
	cfg := whole(Config{Host: "fake.example.com", LocalName: "relay.example.com", Password: password,
		TLS: upstream.TLSNone})
	cfg.Username = user
	if fc.TLS != nil {
		ca, err := pki.NewCA()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.Leaf(pki.Options{Names: []string{"fake.example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		fc.TLS = cert.Server()
		cfg.TLS, cfg.RootCAs = upstream.TLSStartTLS, ca.Pool
	}
	fake := fakesmtp.New(fc)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	t.Cleanup(fake.Close)
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
		near, far := pipe(pipeSize)
		serving.Go(func() { fake.Serve(far) })
		return near, nil
	}
	if change != nil {
		change(&cfg)
	}
	return fake, newUpstream(t, cfg)
}

// pipeSize is what startPiped's connections hold in each direction, in octets: about what a socket does.
const pipeSize = 64 << 10

// whole fills in what is missing, with what relay.toml has by default.
func whole(c Config) Config {
	c.Name, c.Host, c.LocalName, c.TLS = cmp.Or(c.Name, "office"), cmp.Or(c.Host, "mx.example.com"),
		cmp.Or(c.LocalName, "localhost"), cmp.Or(c.TLS, upstream.TLSStartTLS)
	c.Port, c.MaxConnections, c.MaxRecipients = cmp.Or(c.Port, 587), cmp.Or(c.MaxConnections, 10),
		cmp.Or(c.MaxRecipients, 100)
	c.MessagesPerConnection, c.IdleClose, c.MaxAge = cmp.Or(c.MessagesPerConnection, 100),
		cmp.Or(c.IdleClose, 30*time.Second), cmp.Or(c.MaxAge, 15*time.Minute)
	if c.Timeouts == (Timeouts{}) {
		c.Timeouts = Standard
	}
	if c.Mechanisms == nil {
		c.Mechanisms = slices.Concat(DefaultMechanisms, OAuthMechanisms)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Jitter == nil {
		c.Jitter = func() float64 { return 0.5 }
	}
	if c.Token != nil && c.DropToken == nil {
		c.DropToken = func(string, string) {}
	}
	return c
}

// timeouts are the standard ones but for a change.
func timeouts(change func(*Timeouts)) Timeouts {
	t := Standard
	change(&t)
	return t
}

// atMail are the stages from MAIL on.
var atMail = []mail.Stage{mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot}

func newUpstream(t testing.TB, cfg Config) *Upstream {
	t.Helper()
	u, err := New(whole(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := u.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return u
}

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return a
}

var letter = []byte("From: <alice@example.com>\r\nSubject: hello\r\n\r\n.dot\r\n..two dots\r\nthe end\r\n")

func message(t testing.TB, to ...string) upstream.Transaction {
	t.Helper()
	if len(to) == 0 {
		to = []string{"bob@example.net"}
	}
	tr := upstream.Transaction{ID: "m1", From: address(t, "alice@example.com"), Content: mail.BytesContent(letter)}
	for _, a := range to {
		tr.Recipients = append(tr.Recipients, mail.Recipient{To: address(t, a)})
	}
	return tr
}

// send reserves and sends.
func send(t testing.TB, u *Upstream, tr upstream.Transaction) []mail.Result {
	t.Helper()
	return sendCtx(t, context.Background(), u, tr)
}

func sendCtx(t testing.TB, ctx context.Context, u *Upstream, tr upstream.Transaction) []mail.Result {
	t.Helper()
	s, until := u.Reserve(time.Now(), "")
	if s == nil {
		t.Fatalf("no place; until %v", until)
	}
	results := use(s, ctx, tr)
	if len(results) != len(tr.Recipients) {
		t.Fatalf("%d results for %d recipients", len(results), len(tr.Recipients))
	}
	for i, r := range results {
		if r.Recipient != i || r.Class == mail.Unknown || r.Stage == "" || r.Reply.IsZero() || r.Upstream != "office" {
			t.Errorf("result %d is incomplete: %+v", i, r)
		}
	}
	return results
}

// use sends and gives the place back.
func use(s upstream.Slot, ctx context.Context, tr upstream.Transaction) []mail.Result {
	defer s.Release()
	return s.Send(ctx, tr)
}

func classes(results []mail.Result) string {
	var s []string
	for _, r := range results {
		s = append(s, r.Class.String())
	}
	return strings.Join(s, " ")
}

func wantClasses(t testing.TB, results []mail.Result, want string) {
	t.Helper()
	if got := classes(results); got != want {
		t.Errorf("got %s, want %s", got, want)
		for _, r := range results {
			t.Logf("%s %s err=%v", r.Stage, r.Reply, r.Err)
		}
	}
}

func state(u *Upstream) upstream.State { return u.States()[0] }

// hookOn answers one verb, the nth time it comes (0: always).
func hookOn(verb string, nth int, a fakesmtp.Action) func(*fakesmtp.Session, string, string) fakesmtp.Action {
	var mu sync.Mutex
	seen := 0
	return func(_ *fakesmtp.Session, v, _ string) fakesmtp.Action {
		mu.Lock()
		defer mu.Unlock()
		if v != verb {
			return fakesmtp.Action{}
		}
		if seen++; nth != 0 && seen != nth {
			return fakesmtp.Action{}
		}
		return a
	}
}

// stream is content that is not in memory and may break.
type stream struct {
	data  []byte
	size  int64 // claimed
	fail  error // at the end of data
	opens int
}

func (s *stream) Size() int64   { return s.size }
func (s *stream) Bytes() []byte { return nil }
func (s *stream) Open() (io.ReadCloser, error) {
	s.opens++
	var r io.Reader = bytes.NewReader(s.data)
	if s.fail != nil {
		r = io.MultiReader(r, failing{s.fail})
	}
	return io.NopCloser(r), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

var errDisk = errors.New("input/output error")

// large makes canonical content of about n octets with dots in bad places.
func large(n int) []byte {
	var b bytes.Buffer
	b.WriteString("Subject: large\r\n\r\n")
	for b.Len() < n {
		b.WriteString(".starts with a dot\r\n..\r\n.\r\nan ordinary line of some length that is here to fill the " +
			"message\r\n")
	}
	return b.Bytes()
}
