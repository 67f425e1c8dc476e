package smtp

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/via"
)

// through makes an Upstream whose connections go through a proxy. The proxy alone knows where smtp.example.net is.
func through(t *testing.T, proxy *testkit.Proxy, scheme string, fc fakesmtp.Config) (*fakesmtp.Server, *Upstream) {
	t.Helper()
	fake := fakesmtp.New(fc)
	if _, err := fake.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	proxy.To = fake.Addr()
	at, err := proxy.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	p, err := via.Parse(scheme + at)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Host: "fake.example.com", Password: password,
		Timeouts: timeouts(func(t *Timeouts) { t.Connect = 5 * time.Second }),
		Settings: upstream.Settings{RootCAs: authority().Pool, Username: user, Dial: p.Dial},
	}
	if fc.Implicit {
		cfg.TLS, cfg.Port = upstream.TLSImplicit, 465
	}
	return fake, newUpstream(t, cfg)
}

// TLS is verified for the upstream's name through the tunnel, and connections are kept as ever.
func TestThroughProxy(t *testing.T) {
	for _, scheme := range []string{"http://", "http://scott:tiger@", "socks5://", "socks5://scott:tiger@"} {
		for _, implicit := range []bool{false, true} {
			fc := provider()
			fc.Implicit = implicit
			proxy := &testkit.Proxy{}
			if strings.Contains(scheme, "@") {
				proxy.User, proxy.Password = "scott", "tiger"
			}
			fake, u := through(t, proxy, scheme, fc)
			for range 3 {
				wantClasses(t, send(t, u, message(t)), "delivered")
			}
			want := "fake.example.com:587"
			if implicit {
				want = "fake.example.com:465"
			}
			if asked := proxy.Asked(); !slices.Equal(asked, []string{want}) || len(fake.Messages()) != 3 {
				t.Errorf("%s: asked for %q, %d messages", scheme, asked, len(fake.Messages()))
			}
		}
	}
}

func TestTunnelToAnotherServerIsNoticed(t *testing.T) {
	fc := provider()
	fc.TLS = certificate(t, time.Now().Add(time.Hour), "elsewhere.example.com")
	fake, u := through(t, &testkit.Proxy{}, "http://", fc)
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || r.Stage != mail.StageTLS ||
		!strings.Contains(r.Reply.Text, "not for fake.example.com but for elsewhere.example.com") {
		t.Errorf("got %s: %s", r.Class, r.Reply)
	}
	if fake.Counts().Logins+fake.Counts().Refused > 0 {
		t.Error("a password went out")
	}
}

// What a proxy refuses is a trouble of the way there; only its own login needs a person. Nobody's mailbox is to blame.
func TestProxyRefusals(t *testing.T) {
	for _, c := range []struct {
		scheme, answer, user string
		want                 mail.Class
		status               upstream.Status
		text                 string
	}{
		{"http://", "HTTP/1.1 403 no\r\n\r\n", "", mail.BackPressure, upstream.BackingOff,
			"does not let us connect to fake.example.com:587 (403 Forbidden)"},
		{"http://", "HTTP/1.1 503 no\r\n\r\n", "", mail.BackPressure, upstream.BackingOff,
			"cannot reach fake.example.com:587"},
		{"http://", "550 5.7.1 you are blocked\r\n", "", mail.BackPressure, upstream.BackingOff, "is no HTTP"},
		{"http://", "HTTP/1.1 20", "", mail.BackPressure, upstream.BackingOff, "closed the connection"},
		{"socks5://", "\x05\x02\x00\x01", "", mail.BackPressure, upstream.BackingOff, "does not let us connect"},
		{"http://", "", "scott", mail.AccountFault, upstream.Paused, "wants a login (407"},
		{"http://scott:hunter2@", "", "scott", mail.AccountFault, upstream.Paused,
			"refuses the user name or password in its address"},
		{"socks5://scott:hunter2@", "", "scott", mail.AccountFault, upstream.Paused,
			"refuses the user name or password in its address"},
	} {
		proxy := &testkit.Proxy{Answer: c.answer, User: c.user, Password: "tiger"}
		_, u := through(t, proxy, c.scheme, provider())
		r := send(t, u, message(t))[0]
		if r.Class != c.want || r.Stage != mail.StageConnect || !strings.Contains(r.Reply.Text, c.text) ||
			!strings.Contains(r.Reply.Text, "key proxy") || strings.Contains(r.Reply.Text, "hunter2") || r.Uncertain {
			t.Errorf("%q: got %s at %s: %s", c.answer, r.Class, r.Stage, r.Reply)
		}
		if s := state(u); s.Status != c.status {
			t.Errorf("%q: the identity is %s", c.answer, s.Status)
		}
		steps := u.TestSenders(t.Context(), upstream.Trial{})
		if last := steps[len(steps)-1]; last.Name != "connect" || !strings.Contains(last.Cause, c.text) ||
			strings.Contains(last.Cause, "firewall") {
			t.Errorf("%q: upstream test says %s: %s", c.answer, last.Name, last.Cause)
		}
	}
}
