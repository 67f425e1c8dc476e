package graph

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit/pki"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

// listening returns a fake on a socket, and what trusts its certificate.
func listening(t *testing.T, fake *fakeprovider.Graph, until time.Time, names ...string) (base string, ca *pki.CA) {
	t.Helper()
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Leaf(pki.Options{Names: names, NotAfter: until})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := fake.Listen(cert.Server())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return srv.URL + "/v1.0", ca
}

var soon = time.Now().Add(time.Hour)

func TestHTTPS(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	base, ca := listening(t, fake, soon, "127.0.0.1")
	u, _ := connected(t, fake, func(o *Options) { o.Transport, o.BaseURL, o.RootCAs = nil, base, ca.Pool })
	tx := to(t, "To: a@example.org\r\n", "a@example.org", "b@example.org")
	tx.Content = &onDisk{octets: text("To: a@example.org\r\n") + strings.Repeat("some text\r\n", 100_000)}
	for range 3 {
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
			t.Fatalf("%s: %s", r.Class, r.Reply)
		}
	}
	fake.Fail(fakeprovider.GraphFault{Drop: true}) // the connection ends with the answer due
	if r := only(t, send(t, u, tx)); r.Class != mail.Deferral || !r.Uncertain {
		t.Errorf("%s, uncertain %v: %s", r.Class, r.Uncertain, r.Reply)
	}
	fake.Fail()
	if len(fake.Arrivals()) != 3 {
		t.Errorf("%d arrivals", len(fake.Arrivals()))
	}
	if err := u.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TLS that cannot be trusted gets no token.
func TestUntrustedTLS(t *testing.T) {
	for name, c := range map[string]struct {
		until time.Time
		host  string
		trust bool
		says  string
	}{
		"unknown authority": {soon, "127.0.0.1", false, "not issued by an authority"},
		"another name":      {soon, "graph.example.com", true, "not for 127.0.0.1"},
		"expired":           {time.Now().Add(-time.Hour), "127.0.0.1", true, "valid from"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			base, ca := listening(t, fake, c.until, c.host)
			u, _ := connected(t, fake, func(o *Options) {
				o.Transport, o.BaseURL = nil, base
				if c.trust {
					o.RootCAs = ca.Pool
				}
			})
			r := only(t, send(t, u, to(t, "", "a@example.org")))
			if r.Class != mail.AccountFault || r.Stage != mail.StageTLS || !strings.Contains(r.Reply.Text, c.says) {
				t.Errorf("%s at %s: %s", r.Class, r.Stage, r.Reply)
			}
			if fake.Requests() != 0 {
				t.Error("a request was sent")
			}
			steps := u.TestSenders(t.Context(), upstream.Trial{})
			if last := steps[len(steps)-1]; last.Name != "tls" || last.OK || !strings.Contains(last.Cause, c.says) {
				t.Errorf("%+v", steps)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, func(o *Options) { o.Transport, o.BaseURL = nil, "https://127.0.0.1:1/v1.0" })
	r := only(t, send(t, u, to(t, "", "a@example.org")))
	if r.Class != mail.BackPressure || r.Stage != mail.StageConnect || r.Uncertain || status(u) != upstreamBackingOff {
		t.Errorf("%s at %s: %s", r.Class, r.Stage, r.Reply)
	}
	steps := u.TestSenders(t.Context(), upstream.Trial{})
	if last := steps[len(steps)-1]; last.OK || last.Name != "connect" || !strings.Contains(last.Cause, "firewall") {
		t.Errorf("%+v", steps)
	}
}

// The token goes to the configured host and to no other.
func TestRedirectIsNotFollowed(t *testing.T) {
	var reached bool
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	first := httptest.NewTLSServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer first.Close()
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), func(o *Options) {
		o.Transport, o.BaseURL = nil, first.URL
		o.RootCAs = first.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.AccountFault || reached {
		t.Errorf("%s, reached %v", r.Class, reached)
	}
}

func TestTest(t *testing.T) {
	access := fakeprovider.AccessGranted
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{
		Mailboxes: []string{office}, Token: func(string, string) fakeprovider.Access { return access },
	})
	base, ca := listening(t, fake, soon, "127.0.0.1")
	u, k := connected(t, fake, func(o *Options) { o.Transport, o.BaseURL, o.RootCAs = nil, base, ca.Pool })

	names := func(steps []upstream.Step) string {
		var s []string
		for _, st := range steps {
			s = append(s, st.Name)
		}
		return strings.Join(s, " ")
	}
	steps := u.TestSenders(t.Context(), upstream.Trial{})
	if names(steps) != "connect tls token permission" { // an address needs no resolving
		t.Errorf("%s", names(steps))
	}
	for _, s := range steps {
		if !s.OK || s.Seen == "" || s.Cause != "" {
			t.Errorf("%+v", s)
		}
	}
	access = fakeprovider.AccessDenied
	last := func() upstream.Step { s := u.TestSenders(t.Context(), upstream.Trial{}); return s[len(s)-1] }
	if s := last(); s.OK || s.Name != "permission" || !strings.Contains(s.Cause, "Mail.Send") || k.drops() != 1 {
		t.Errorf("denied: %+v", s)
	}
	access = fakeprovider.AccessInvalid
	if s := last(); s.OK || !strings.Contains(s.Cause, "scope") {
		t.Errorf("invalid: %+v", s)
	}
	access = fakeprovider.AccessGranted
	senders := []mail.Address{address(t, "nobody@example.com"), address(t, office)}
	s := u.TestSenders(t.Context(), upstream.Trial{Senders: senders, AsThemselves: true})
	if names(s) != "connect tls token permission token permission token permission" || s[5].OK ||
		s[5].Sender != "nobody@example.com" || s[5].Identity != "nobody@example.com" ||
		!strings.Contains(s[5].Cause, "no such mailbox") || !strings.Contains(s[5].Cause, "goes by "+office) ||
		!s[7].OK || s[7].Sender != office {
		t.Errorf("senders: %+v", s)
	}
	if s := u.TestSenders(t.Context(), upstream.Trial{Senders: senders}); len(s) != 4 {
		t.Errorf("%+v", s)
	}
	k.err = lasting(true)
	if s := last(); s.OK || s.Name != "token" || !strings.Contains(s.Cause, "no grant") {
		t.Errorf("no token: %+v", s)
	}
	if len(fake.Arrivals()) != 0 || status(u) != upstreamReady {
		t.Errorf("%d arrivals, %s", len(fake.Arrivals()), status(u))
	}
}

// Where large mail is rebuilt, its right is probed too, and no draft is made.
func TestTestOfLargeMail(t *testing.T) {
	access := fakeprovider.AccessDenied
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{ReadWrite: func(string,
		string) fakeprovider.Access {
		return access
	}})
	u, k := uploading(t, fake, nil)
	steps := u.TestSenders(t.Context(), upstream.Trial{})
	if last := steps[len(steps)-1]; last.OK || last.Name != "large-mail" ||
		!strings.Contains(last.Cause, `"Application Mail.ReadWrite"`) || k.drops() != 1 {
		t.Errorf("%+v", steps)
	}
	access = fakeprovider.AccessGranted
	steps = u.TestSenders(t.Context(), upstream.Trial{})
	if last := steps[len(steps)-1]; !last.OK || last.Name != "large-mail" || last.Seen == "" {
		t.Errorf("%+v", steps)
	}
	if len(fake.Drafts()) != 0 || len(fake.Arrivals()) != 0 {
		t.Error("something was made")
	}
}

func TestOptions(t *testing.T) {
	for says, change := range map[string]func(*Options){
		"[upstream.oauth]": func(o *Options) { o.Token, o.DropToken = nil, nil },
		"no mailbox":       func(o *Options) { o.Username = "" },
		"write its addr":   func(o *Options) { o.Username = "a/b@example.com" },
		"base URL":         func(o *Options) { o.BaseURL = "http://graph.example.com/v1.0" },
		"is not like":      func(o *Options) { o.BaseURL = "https://u:p@graph.example.com" },
		"large_mail":       func(o *Options) { o.LargeMail = "maybe" },
		"too few":          func(o *Options) { o.Timeouts.Drain = 0 },
	} {
		o := options(&tokens{})
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	o := options(&tokens{})
	for _, cloud := range []string{"", "us-gov", "us-gov-dod", "china"} {
		o.BaseURL = CloudURL(cloud)
		if _, err := New(o); err != nil || o.BaseURL == "" {
			t.Errorf("%s: %q, %v", cloud, o.BaseURL, err)
		}
	}
	o.BaseURL, o.Username = GlobalURL, "a&b@example.com"
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	want := "https://graph.microsoft.com/v1.0/users/a%25b%20c@example.com/sendMail"
	if got := u.sendMailURL("a%b c@example.com"); got != want {
		t.Error(got)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 9, 1, 8, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "17": 17 * time.Second, "1.5": 1500 * time.Millisecond, "-4": 0, "NaN": 0, "Inf": day, "999999999": day,
		"soon":                          0,
		"Tue, 01 Sep 2026 08:00:30 GMT": 30 * time.Second, "Tue, 01 Sep 2020 08:00:30 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q is %s, want %s", value, got, want)
		}
	}
}

// A server that lets us connect and is silent about TLS is the network's trouble.
func TestSilentTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), func(o *Options) {
		o.Transport, o.BaseURL, o.Timeouts.TLS = nil, "https://"+l.Addr().String()+"/v1.0", 50*time.Millisecond
	})
	r := only(t, send(t, u, to(t, "", "a@example.org")))
	if r.Class != mail.BackPressure || r.Stage != mail.StageTLS ||
		!strings.Contains(r.Reply.Text, "did not finish the TLS handshake") {
		t.Errorf("%s at %s: %s", r.Class, r.Stage, r.Reply)
	}
}
