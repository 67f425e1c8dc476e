package smtp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/mail"
	"postern/relay/upstream"
)

// peer is a backend for go-smtp's server, which knows nothing of our client.
type peer struct {
	mu   sync.Mutex
	got  [][]byte
	rcpt [][]string
}

func (p *peer) NewSession(*smtp.Conn) (smtp.Session, error) { return &peerSession{p: p}, nil }

type peerSession struct {
	p  *peer
	to []string
	ok bool
}

func (s *peerSession) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *peerSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, u, p string) error {
		if u != user || p != password {
			return smtp.ErrAuthFailed
		}
		s.ok = true
		return nil
	}), nil
}
func (s *peerSession) Mail(string, *smtp.MailOptions) error {
	if !s.ok {
		return smtp.ErrAuthRequired
	}
	return nil
}
func (s *peerSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.to = append(s.to, to)
	return nil
}
func (s *peerSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.got = append(s.p.got, b)
	s.p.rcpt = append(s.p.rcpt, s.to)
	return nil
}
func (s *peerSession) Reset()        { s.to = nil }
func (s *peerSession) Logout() error { return nil }

func TestAgainstAnotherServer(t *testing.T) {
	p := &peer{}
	srv := smtp.NewServer(p)
	srv.Domain, srv.TLSConfig = "peer.example.com", goodTLS()
	srv.EnableDSN, srv.EnableSMTPUTF8, srv.MaxMessageBytes, srv.MaxRecipients = true, true, 10<<20, 5
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); wg.Wait() })
	u := newUpstream(t, Config{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Password: password,
		Settings: upstream.Settings{RootCAs: authority().Pool, Username: user}})

	big := large(900 << 10)
	for i, content := range []mail.Content{
		mail.BytesContent(letter), mail.BytesContent(big), &stream{data: big, size: int64(len(big))},
		mail.BytesContent(letter),
	} {
		tr := message(t, "bob@example.net", "nobody@example.net", "carol@example.net")
		tr.Content = content
		wantClasses(t, send(t, u, tr), "delivered recipient-fault delivered")
		r, _ := content.Open()
		want, _ := io.ReadAll(r)
		if len(p.got) != i+1 || !bytes.Equal(p.got[i], want) || len(p.rcpt[i]) != 2 {
			t.Fatalf("message %d did not arrive as sent", i)
		}
	}
	wantClasses(t, send(t, u, message(t, "nobody@example.net")), "recipient-fault")
	tr := many(t, 12) // more than it takes at once
	for i, r := range send(t, u, tr) {
		if r.Class != mail.Delivered {
			t.Errorf("recipient %d: %s", i, r.Reply)
		}
	}
}

// sink takes everything as fast as it can, so that the client is what is measured. It must see BDAT in the first
// flight.
func sink(b *testing.B, tc *tls.Config) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { sinkOne(nc, tc) })
		}
	})
	b.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func sinkOne(nc net.Conn, tc *tls.Config) {
	if tc != nil {
		nc = tls.Server(nc, tc)
	}
	defer nc.Close()
	br := bufio.NewReaderSize(nc, 64<<10)
	var out []byte
	out = append(out, "220 sink\r\n"...)
	for {
		if br.Buffered() == 0 {
			if _, err := nc.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		line, err := br.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte("EHLO")):
			out = append(out, "250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250 CHUNKING\r\n"...)
		case bytes.HasPrefix(line, []byte("BDAT ")):
			n, _ := strconv.Atoi(string(bytes.Fields(line)[1]))
			br.Discard(n)
			out = append(out, "250 2.0.0 taken as 123456\r\n"...)
		case bytes.HasPrefix(line, []byte("QUIT")):
			nc.Write(append(out, "221 bye\r\n"...))
			return
		default:
			out = append(out, "250 2.0.0 ok\r\n"...)
		}
	}
}

func benchmarkSend(b *testing.B, size int, secure bool) {
	var tc *tls.Config
	cfg := Config{Host: "127.0.0.1", TLS: upstream.TLSNone, MessagesPerConnection: 1 << 30}
	if secure {
		tc = goodTLS()
		cfg.TLS, cfg.RootCAs = upstream.TLSImplicit, authority().Pool
	}
	cfg.Port = sink(b, tc)
	u := newUpstream(b, cfg)
	tr := message(b)
	tr.Content = mail.BytesContent(large(size))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		s, _ := u.Reserve(time.Now(), "")
		if s == nil {
			b.Fatal(errors.New("no place"))
		}
		if r := use(s, b.Context(), tr); r[0].Class != mail.Delivered {
			b.Fatal(r[0].Reply)
		}
	}
}

func BenchmarkSend(b *testing.B) {
	for _, c := range []struct {
		name   string
		size   int
		secure bool
	}{{"4KiB", 4 << 10, false}, {"4KiB-TLS", 4 << 10, true}, {"1MiB", 1 << 20, false}, {"1MiB-TLS", 1 << 20, true}} {
		b.Run(c.name, func(b *testing.B) { benchmarkSend(b, c.size, c.secure) })
	}
}
