package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/internal/testkit/pki"
	"postern/mail"
	"postern/relay/upstream"
)

// noSecret fails when AUTH or MAIL went out on a connection that was not good enough. The connection has been given up:
// when the fake has read to its end it has seen all that there was.
func noSecret(t *testing.T, fake *fakesmtp.Server) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); fake.Counts().Open > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the connection was not given up")
		}
	}
	for _, l := range fake.Log() {
		if strings.HasPrefix(l, "AUTH") || strings.HasPrefix(l, "MAIL") {
			t.Errorf("%q was sent", l)
		}
	}
}

func TestCertificates(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	stranger, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	wants := certificate(t, soon, "127.0.0.1")
	wants.ClientAuth = tls.RequireAnyClientCert
	old := certificate(t, soon, "127.0.0.1")
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	for _, c := range []struct {
		name  string
		tls   *tls.Config
		roots *x509.CertPool
		cause string
	}{
		{"client certificate wanted", wants, authority().Pool, "refuses TLS with us: certificate required"},
		{"wrong name", certificate(t, soon, "other.example.com"), authority().Pool,
			"not for 127.0.0.1 but for other.example.com"},
		{"expired", certificate(t, time.Now().Add(-time.Hour), "127.0.0.1"), authority().Pool, "is valid from"},
		{"unknown authority", certificate(t, soon, "127.0.0.1"), stranger.Pool,
			"not issued by an authority that we trust"},
		{"system authorities only", certificate(t, soon, "127.0.0.1"), nil, "not issued by an authority that we trust"},
		{"TLS 1.1", old, authority().Pool, "offers no TLS of version 1.2 or later"},
	} {
		for _, implicit := range []bool{false, true} {
			fc := provider()
			fc.TLS, fc.Implicit = c.tls, implicit
			fake, u := start(t, fc, func(cfg *Config) { cfg.RootCAs = c.roots })
			r := send(t, u, message(t))[0]
			if r.Class != mail.AccountFault || r.Stage != mail.StageTLS || r.Reply.Enhanced != "4.7.5" ||
				!strings.Contains(r.Reply.Text, c.cause) {
				t.Errorf("%s: got %s at %s: %s (%v)", c.name, r.Class, r.Stage, r.Reply, r.Err)
			}
			noSecret(t, fake)
			if s := state(u); s.Status != upstream.Paused {
				t.Errorf("%s: identity is %s", c.name, s.Status)
			}
		}
	}
}

func TestSkippedVerification(t *testing.T) {
	fc := provider()
	fc.TLS = certificate(t, time.Now().Add(-time.Hour), "other.example.com")
	_, u := start(t, fc, func(cfg *Config) { cfg.RootCAs, cfg.InsecureSkipVerify = nil, true })
	wantClasses(t, send(t, u, message(t)), "delivered")
}

func TestRoots(t *testing.T) {
	pool, err := upstream.Roots(authority().PEM)
	if err != nil {
		t.Fatal(err)
	}
	_, u := start(t, provider(), func(cfg *Config) { cfg.RootCAs = pool })
	wantClasses(t, send(t, u, message(t)), "delivered")
	if _, err := upstream.Roots([]byte("no certificate")); err == nil {
		t.Error("rubbish was accepted")
	}
}

func TestExplanations(t *testing.T) {
	u, err := New(whole(Config{Settings: upstream.Settings{Username: user}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    fault
		want string
	}{
		{fault{stage: mail.StageResolve, reply: mail.R(451, "4.4.3", "no address")}, "name servers"},
		{fault{stage: mail.StageConnect, reply: mail.R(451, "4.4.1", "refused")},
			"firewall lets this machine out to port 587"},
		{fault{stage: mail.StageAuth, reply: mail.R(535, "5.7.8", "no"), class: mail.AccountFault},
			`user name or password of "relay@example.com"`},
		{fault{stage: mail.StageAuth, reply: mail.R(534, "5.7.9", "no"), class: mail.AccountFault}, "app password"},
		{fault{stage: mail.StageAuth, reply: mail.R(454, "4.7.0", "no"), class: mail.BackPressure},
			"passes without a change"},
		{fault{stage: mail.StageTLS, reply: mail.R(454, "4.7.5", "untrusted"), class: mail.AccountFault}, "ca_file"},
		{fault{stage: mail.StageGreeting, reply: mail.R(554, "5.7.1", "no"), class: mail.AccountFault},
			"blocked there"},
		{fault{stage: mail.StageEHLO, reply: mail.R(550, "5.7.1", "no fun"), class: mail.AccountFault}, "no fun"},
	} {
		if got := u.explain(&c.f, u.cfg.Username); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q lacks %q", c.f.stage, c.f.reply, got, c.want)
		}
	}
}

func TestStartTLSStripped(t *testing.T) {
	fc := provider()
	fc.TLS = nil
	fake, u := start(t, fc, func(cfg *Config) { cfg.TLS = upstream.TLSStartTLS })
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || r.Stage != mail.StageTLS ||
		!strings.Contains(r.Reply.Text, "does not offer STARTTLS") {
		t.Errorf("got %s at %s: %s", r.Class, r.Stage, r.Reply)
	}
	noSecret(t, fake)
}

// Octets in clear behind the reply to STARTTLS must not be taken for the secured server's.
func TestResponseInjection(t *testing.T) {
	fc := provider()
	fc.Hook = hookOn("STARTTLS", 1, fakesmtp.Action{Reply: "220 go ahead\n250-injected.example.org\n250 AUTH PLAIN",
		Also: true})
	fake, u := start(t, fc, nil)
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || r.Stage != mail.StageTLS || r.Err == nil {
		t.Errorf("got %s at %s: %s", r.Class, r.Stage, r.Reply)
	}
	noSecret(t, fake)
}

func TestPlainServerOnImplicitPort(t *testing.T) {
	fc := provider()
	fake, u := start(t, fc, func(cfg *Config) { cfg.TLS = upstream.TLSImplicit })
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || !strings.Contains(r.Reply.Text, "does not speak TLS on this port") {
		t.Errorf("got %s at %s: %s (%v)", r.Class, r.Stage, r.Reply, r.Err)
	}
	noSecret(t, fake)
}

func TestExtensionsBeforeTLSAreForgotten(t *testing.T) {
	fc := provider()
	fc.Extensions = nil
	fc.Hook = func(s *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "EHLO" && !s.TLS {
			return fakesmtp.Action{Reply: fakesmtp.Multi(250, "fake", "STARTTLS", "PIPELINING", "CHUNKING", "DSN")}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, nil)
	r := send(t, u, message(t))
	wantClasses(t, r, "delivered")
	if r[0].RelayedDSN || !slices.Contains(fake.Log(), "DATA") {
		t.Errorf("extensions of before TLS were used: %q", fake.Log())
	}
}

func TestSessionsAreResumed(t *testing.T) {
	fake, u := start(t, provider(), func(cfg *Config) { cfg.MessagesPerConnection = 1 })
	for range 3 {
		wantClasses(t, send(t, u, message(t)), "delivered")
	}
	if n := fake.Counts(); n.Connections != 3 || n.Resumed != 2 {
		t.Errorf("%d connections, %d resumed", n.Connections, n.Resumed)
	}
}

func TestSteps(t *testing.T) {
	fake, u := start(t, provider(), nil)
	steps := u.TestSenders(context.Background(), upstream.Trial{})
	var names []string
	for _, s := range steps {
		names = append(names, s.Name)
		if !s.OK || s.Cause != "" {
			t.Errorf("%s failed: %s", s.Name, s.Cause)
		}
	}
	if !slices.Equal(names, []string{"resolve", "connect", "greeting", "ehlo", "starttls", "ehlo", "auth"}) {
		t.Errorf("steps %v", names)
	}
	for i, want := range map[int]string{0: "127.0.0.1", 2: "fake.example.com",
		4: "certificate for fake.example.com, 127.0.0.1 by Test authority, valid until", 5: "AUTH PLAIN LOGIN",
		6: "PLAIN as " + user} {
		if !strings.Contains(steps[i].Seen, want) {
			t.Errorf("%s saw %q, not %q", steps[i].Name, steps[i].Seen, want)
		}
	}
	if len(fake.Messages()) != 0 || slices.ContainsFunc(fake.Log(),
		func(l string) bool { return strings.HasPrefix(l, "MAIL") }) {
		t.Error("Test sent something")
	}
	if fake.Counts().Quits != 1 {
		t.Error("Test left without QUIT")
	}

	_, u = start(t, provider(), func(cfg *Config) { cfg.Password = "wrong" })
	steps = u.TestSenders(context.Background(), upstream.Trial{})
	last := steps[len(steps)-1]
	if last.OK || last.Name != "auth" || last.Reply.Code != 535 || !strings.Contains(last.Cause, "app password") {
		t.Errorf("last step %+v", last)
	}
	if s := state(u); s.Status != upstream.Ready {
		t.Error("a test paused the identity")
	}
	for _, s := range steps {
		if strings.Contains(s.Seen+s.Cause+s.Reply.String(), "wrong\"") {
			t.Error("the password is in a step")
		}
	}

	u = newUpstream(t, Config{Host: "127.0.0.1", Port: 1})
	steps = u.TestSenders(context.Background(), upstream.Trial{})
	last = steps[len(steps)-1]
	if last.OK || last.Name != "connect" || !strings.Contains(last.Cause, "refuses connections") ||
		!strings.Contains(last.Cause, "port 1") {
		t.Errorf("last step %+v", last)
	}
}
