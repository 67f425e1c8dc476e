package graph

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

const office = "office@example.com"

// tokens is a token source that counts.
type tokens struct {
	mu      sync.Mutex
	serial  int
	dropped []string
	err     error
}

func (k *tokens) token(_ context.Context, mailbox string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprintf("token-%d", k.serial), k.err
}

func (k *tokens) drop(_, token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropped = append(k.dropped, token)
	k.serial++
}

func (k *tokens) drops() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.dropped)
}

// options are whole ones, with the values that relay.toml has by default.
func options(k *tokens) Options {
	return Options{
		Settings: upstream.Settings{
			Name: "graph", Username: office, Token: k.token, DropToken: k.drop, Jitter: func() float64 { return 0.5 },
			MaxConnections: DefaultConnections, MaxRecipients: DefaultRecipients, MaxMessageSize: DefaultMessageSize,
			Logger: slog.New(slog.DiscardHandler),
		},
		BaseURL: GlobalURL, Timeouts: Standard, LargeMail: RefuseLarge,
	}
}

// connected returns an upstream that reaches a fake without a socket.
func connected(t testing.TB, fake *fakeprovider.Graph, change func(*Options)) (*Upstream, *tokens) {
	t.Helper()
	k := &tokens{}
	o := options(k)
	o.Transport = testkit.Transport(fake)
	if change != nil {
		change(&o)
	}
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return u, k
}

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return a
}

// to makes a transaction for some recipients with a header of some fields.
func to(t testing.TB, header string, recipients ...string) upstream.Transaction {
	t.Helper()
	tx := upstream.Transaction{ID: "id", From: address(t, office), Content: mail.BytesContent(text(header))}
	for _, r := range recipients {
		tx.Recipients = append(tx.Recipients, mail.Recipient{To: address(t, r)})
	}
	return tx
}

const bodyText = "first line\r\n.\r\n.. dots \x00\xff and octets\r\n"

func text(header string) string {
	return "From: " + office + "\r\n" + header + "Subject: test\r\n\r\n" + bodyText
}

// send makes one attempt on a place that must be free.
func send(t testing.TB, u *Upstream, tx upstream.Transaction) []mail.Result {
	t.Helper()
	s := reserve(t, u)
	results := s.Send(t.Context(), tx)
	if len(results) != len(tx.Recipients) {
		t.Fatalf("%d results for %d recipients", len(results), len(tx.Recipients))
	}
	for i, r := range results {
		if r.Recipient != i || r.Upstream != "graph" || r.Host == "" || r.Identity == "" || r.Class == mail.Unknown ||
			r.Reply.IsZero() || r.RelayedDSN {
			t.Errorf("result %d is %+v", i, r)
		}
	}
	return results
}

func reserve(t testing.TB, u *Upstream) upstream.Slot {
	t.Helper()
	s, until := u.Reserve(time.Now(), "")
	if s == nil {
		t.Fatalf("no place, until %v", until)
	}
	return s
}

// only returns the one result that all recipients share.
func only(t testing.TB, results []mail.Result) mail.Result {
	t.Helper()
	for _, r := range results[1:] {
		if r.Class != results[0].Class || r.Reply != results[0].Reply {
			t.Errorf("results differ: %+v and %+v", results[0], r)
		}
	}
	return results[0]
}

func status(u *Upstream) upstream.Status { return u.States()[0].Status }

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// onDisk is content that is in no memory.
type onDisk struct {
	octets string
	opens  int
	cut    int // the octets after which reading fails, 0: never
}

func (d *onDisk) Size() int64   { return int64(len(d.octets)) }
func (d *onDisk) Bytes() []byte { return nil }
func (d *onDisk) Open() (io.ReadCloser, error) {
	d.opens++
	r := io.Reader(strings.NewReader(d.octets))
	if d.cut > 0 {
		r = io.MultiReader(strings.NewReader(d.octets[:d.cut]), failing{})
	}
	return io.NopCloser(r), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fmt.Errorf("bad sector") }
