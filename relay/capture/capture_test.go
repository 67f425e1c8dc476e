package capture_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/internal/testkit"
	"postern/relay/capture"
)

const message = "From: ann@example.com\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\n.a dot first\r\nlast line\r\n"

func start(t *testing.T) (*capture.Server, *testkit.CA) {
	t.Helper()
	return startWith(t, capture.Options{})
}

func startWith(t *testing.T, o capture.Options) (*capture.Server, *testkit.CA) {
	t.Helper()
	ca := testkit.NewCA(t)
	o.TLS, o.Username, o.Password = ca.Leaf(testkit.LeafOptions{}).Server(), "ann", "secret words"
	s, err := capture.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, ca
}

func login(t *testing.T, s *capture.Server, ca *testkit.CA) *smtp.Client {
	t.Helper()
	c, err := smtp.DialStartTLS(s.Addr(), ca.Client("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Auth(sasl.NewPlainClient("", "ann", "secret words")); err != nil {
		t.Fatal(err)
	}
	return c
}

func wait(t *testing.T, s *capture.Server) capture.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := s.WaitMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRealClients(t *testing.T) {
	s, ca := start(t)
	_, port, _ := net.SplitHostPort(s.Addr())
	for _, c := range testkit.Clients() {
		t.Run(c.Name, func(t *testing.T) {
			out := c.Send(t, testkit.Submission{
				Server: "localhost:" + port, TLS: testkit.StartTLS, CAFile: ca.File,
				Login: "ann", Password: "secret words", Mechanism: "PLAIN",
				From: "ann@example.com", To: []string{"bob@example.net", "eve@example.org"}, Message: []byte(message),
			})
			if !out.OK {
				t.Fatalf("refused:\n%s", out.Text)
			}
			m := wait(t, s)
			if m.From != "ann@example.com" || !slices.Equal(m.Recipients,
				[]string{"bob@example.net", "eve@example.org"}) {
				t.Errorf("envelope %q %q", m.From, m.Recipients)
			}
			if m.Login != "ann" || m.TLS.Version < tls.VersionTLS12 {
				t.Errorf("login %q, TLS %x", m.Login, m.TLS.Version)
			}
			// msmtp and swaks may complete the header; the body is everybody's.
			if !bytes.HasSuffix(m.Data, []byte("\r\n\r\n.a dot first\r\nlast line\r\n")) {
				t.Errorf("data %q", m.Data)
			}
		})
	}
}

func TestGoSMTPClient(t *testing.T) {
	s, ca := start(t)
	c, err := smtp.DialStartTLS(s.Addr(), ca.Client("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("ann@example.com", nil); code(err) != 530 {
		t.Errorf("MAIL before AUTH: %v", err)
	}
	if err := c.Auth(sasl.NewPlainClient("", "ann", "secret words")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // two messages on one connection
		if err := c.SendMail("ann@example.com", []string{"bob@example.net"}, strings.NewReader(message)); err != nil {
			t.Fatal(err)
		}
		if m := wait(t, s); string(m.Data) != message {
			t.Errorf("data %q", m.Data)
		}
	}
}

func TestGreylist(t *testing.T) {
	s, ca := startWith(t, capture.Options{Greylist: 1})
	c := login(t, s, ca)
	for _, want := range []int{451, 0} {
		err := c.SendMail("ann@example.com", []string{"bob@example.net"}, strings.NewReader(message))
		if code(err) != want || want == 0 && err != nil {
			t.Fatalf("%v, want %d", err, want)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, s)
}

func code(err error) int {
	var e *smtp.SMTPError
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestRefusals(t *testing.T) {
	s, ca := start(t)
	clear, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer clear.Close()
	if err := clear.Auth(sasl.NewPlainClient("", "ann", "secret words")); code(err) != 523 {
		t.Errorf("AUTH in clear: %v", err)
	}
	c, err := smtp.DialStartTLS(s.Addr(), ca.Client("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", "ann", "wrong")); code(err) != 535 {
		t.Errorf("a wrong password: %v", err)
	}
}

// What nobody fetches is bounded.
func TestBounds(t *testing.T) {
	s, ca := start(t)
	c := login(t, s, ca)
	for i := range 101 {
		if err := c.SendMail("ann@example.com", []string{"bob@example.net"},
			strings.NewReader(fmt.Sprintf("Subject: %d\r\n", i))); err != nil {
			t.Fatal(err)
		}
	}
	if m := wait(t, s); string(m.Data) != "Subject: 1\r\n" {
		t.Errorf("the oldest is %q", m.Data)
	}
}

func TestWaitAndClose(t *testing.T) {
	s, _ := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.WaitMessage(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled wait: %v", err)
	}
	got := make(chan error)
	go func() { _, err := s.WaitMessage(t.Context()); got <- err }()
	s.Close()
	if err := <-got; !errors.Is(err, capture.ErrClosed) {
		t.Errorf("wait over close: %v", err)
	}
	s.Close() // again is harmless
}

func TestContextEndsServer(t *testing.T) {
	ca := testkit.NewCA(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := capture.Start(ctx, capture.Options{TLS: ca.Leaf(testkit.LeafOptions{}).Server(), Username: "a",
		Password: "b"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.WaitMessage(t.Context()); !errors.Is(err, capture.ErrClosed) {
		t.Errorf("after the context: %v", err)
	}
	s.Close()
}
