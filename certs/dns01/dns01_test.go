package dns01

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/internal/testkit"
	"postern/relay/dnscheck/dnstest"
)

const (
	goodName  = "_acme-challenge.relay.example.com"
	goodValue = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
)

// hostile are names and values that a CA may send, and that must reach neither a server nor a program.
var hostile = [][2]string{
	{"_acme-challenge.$(reboot).example.com", goodValue},
	{"_acme-challenge.a;reboot", goodValue},
	{"_acme-challenge.a b", goodValue},
	{"_acme-challenge.a\nb", goodValue},
	{"_acme-challenge.../../etc", goodValue},
	{"_acme-challenge.-rf", goodValue},
	{"--help", goodValue},
	{"relay.example.com", goodValue},
	{"_acme-challenge." + strings.Repeat("a", 300), goodValue},
	{"_acme-challenge.bücher.example", goodValue},
	{goodName, ""},
	{goodName, "a\" TXT \"b"},
	{goodName, "`id`"},
	{goodName, "a\x00b"},
	{goodName, strings.Repeat("a", 300)},
}

func TestHostile(t *testing.T) {
	touched := filepath.Join(t.TempDir(), "touched")
	hook := &Exec{Command: []string{testkit.Need(t, "touch"), touched}}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the server was asked")
	}))
	defer server.Close()
	all := map[string]interface {
		Present(ctx context.Context, name, value string) error
	}{
		"exec":     hook,
		"acme-dns": &AcmeDNS{URL: server.URL, Account: AcmeDNSAccount{"u", "p", "d.example.com"}},
		"rfc2136":  &RFC2136{Server: strings.TrimPrefix(server.URL, "http://")},
	}
	for _, h := range hostile {
		for name, one := range all {
			if err := one.Present(t.Context(), h[0], h[1]); err == nil || !strings.Contains(err.Error(), "is no ") {
				t.Errorf("%s takes %q %q: %v", name, h[0], h[1], err)
			}
		}
		if err := hook.CleanUp(t.Context(), h[0], h[1]); err == nil {
			t.Errorf("cleanup takes %q %q", h[0], h[1])
		}
	}
	if _, err := os.Stat(touched); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the program was run")
	}
	if err := check(goodName, goodValue); err != nil {
		t.Error(err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, h := range hostile {
		f.Add(h[0], h[1])
	}
	f.Add(goodName, goodValue)
	f.Fuzz(func(t *testing.T, name, value string) {
		if check(name, value) != nil {
			return
		}
		for _, s := range []string{name, value} {
			if strings.ContainsAny(s, "$`'\"\\ \t\r\n\x00;|&<>(){}[]*?!~#%=/,:@") || len(s) > maxText {
				t.Errorf("%q %q", name, value)
			}
		}
		if strings.HasPrefix(name, "-") {
			t.Errorf("%q is an option", name)
		}
	})
}

// script writes a program.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExec(t *testing.T) {
	t.Setenv("UPSTREAM_PASSWORD", "hunter2")
	t.Run("arguments and environment", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		e := &Exec{Command: []string{script(t, "echo \"$#:$*\" >"+out+"; env >>"+out), "a b", "$HOME"}}
		if err := e.Present(t.Context(), goodName, goodValue); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(out)
		if err != nil || !strings.HasPrefix(string(got), "5:a b $HOME present "+goodName+" "+goodValue+"\n") ||
			!strings.Contains(string(got), "POSTERN_ACME_NAME="+goodName+"\n") {
			t.Errorf("%s, %v", got, err)
		}
		if strings.Contains(string(got), "hunter2") {
			t.Error("the program sees our secrets")
		}
	})
	t.Run("failure", func(t *testing.T) {
		e := &Exec{Command: []string{script(t, "yes x | head -c 200000; printf 'no\\033[2J such zone' >&2; exit 3")}}
		err := e.Present(t.Context(), goodName, goodValue)
		if err == nil || !strings.Contains(err.Error(), "exit status 3") || len(err.Error()) > 2000 ||
			strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a program that hangs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		started := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel() }))
		defer started.Close()
		e := &Exec{Command: []string{script(t, testkit.Need(t, "curl")+" -s "+started.URL+"; exec sleep 600")}}
		if err := e.Present(ctx, goodName, goodValue); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	t.Run("no program", func(t *testing.T) {
		if err := (&Exec{Command: []string{"/nowhere/hook"}}).Present(t.Context(), goodName, goodValue); err == nil {
			t.Error("no error")
		}
	})
}

// memory keeps an account.
type memory map[string][]byte

func (m memory) Load(_ context.Context, key string) ([]byte, error) {
	if v, ok := m[key]; ok {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (m memory) Store(_ context.Context, key string, value []byte) error { m[key] = value; return nil }
func (memory) Lock(context.Context, string) error                        { return nil }
func (memory) Unlock(context.Context, string) error                      { return nil }

func TestAcmeDNSRefusals(t *testing.T) {
	var leaked bytes.Buffer
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Fprint(&leaked, r.Header, r.Method)
	}))
	defer elsewhere.Close()
	account := `{"username":"u","password":"p","fulldomain":"d.auth.example.com"}`
	cases := []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"redirection", "answers 307", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}},
		{"refusal", `answers 401: "{\"error\":\"forbidden\"}"`, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"forbidden"}`)
		}},
		{"endless answer", "answers something else", func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 4096)); err != nil {
					return
				}
			}
		}},
		{"hostile name", "no account that can be used", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Replace(account, "d.auth", `d.\u001b[2J;$(id)`, 1))
		}},
		{"no password", "no account that can be used", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Replace(account, `"p"`, `""`, 1))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.answer)
			defer s.Close()
			keep := memory{}
			a := &AcmeDNS{URL: s.URL, Keep: keep}
			if c.name == "refusal" || c.name == "redirection" {
				a.Account = AcmeDNSAccount{"u", "hunter2", "d.auth.example.com"}
			}
			err := a.Present(t.Context(), goodName, goodValue)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if len(keep) != 0 {
				t.Error("an account is kept")
			}
		})
	}
	if leaked.Len() != 0 {
		t.Errorf("the account went elsewhere: %s", leaked.String())
	}
}

// nameServer answers updates and questions by TCP.
func nameServer(t *testing.T, secrets map[string]string, answer func(m *dns.Msg, signed bool) *dns.Msg) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, TsigSecret: secrets,
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		a := answer(m, m.IsTsig() != nil && w.TsigStatus() == nil)
		if key := m.IsTsig(); key != nil && w.TsigStatus() == nil {
			a.SetTsig(key.Hdr.Name, key.Algorithm, 300, time.Now().Unix())
		}
		_ = w.WriteMsg(a)
	})
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func TestRFC2136(t *testing.T) {
	const secret = "c2VjcmV0IG9mIHRoZSB0ZXN0LCAzMiBvY3RldHMgbG9uZw=="
	var got []dns.RR
	rcode := dns.RcodeSuccess
	server := nameServer(t, map[string]string{"postern.": secret}, func(m *dns.Msg, signed bool) *dns.Msg {
		a := new(dns.Msg).SetReply(m)
		switch {
		case m.IsTsig() != nil && !signed:
			a.Rcode = dns.RcodeNotAuth
		case !signed:
			a.Rcode = dns.RcodeRefused
		case m.Opcode == dns.OpcodeUpdate:
			got, a.Rcode = append(got, m.Ns...), rcode
		case m.Question[0].Name == "example.com.":
			a.Answer = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeSOA,
				Class: dns.ClassINET}, Ns: "ns.", Mbox: "m."}}
		}
		return a
	})
	r := &RFC2136{Server: server, Key: "Postern", Secret: secret, Algorithm: "hmac-sha512"}
	if err := errors.Join(r.Present(t.Context(), goodName, goodValue),
		r.CleanUp(t.Context(), goodName, goodValue)); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Header().Name != goodName+"." || got[0].(*dns.TXT).Txt[0] != goodValue ||
		got[0].Header().Ttl > 60 || got[1].Header().Class != dns.ClassNONE {
		t.Errorf("%v", got)
	}
	for code, want := range map[int]string{dns.RcodeRefused: "update policy", dns.RcodeNotAuth: "both clocks",
		dns.RcodeNotZone: "not in that zone", dns.RcodeServerFailure: "look at its log"} {
		rcode = code
		if err := r.Present(t.Context(), goodName, goodValue); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := r.Present(t.Context(), "_acme-challenge.relay.example.org", goodValue); err == nil ||
		!strings.Contains(err.Error(), "has no zone for") {
		t.Error(err)
	}
	wrong := *r
	rcode = dns.RcodeSuccess
	wrong.Secret = "b3RoZXIgc2VjcmV0IG9mIHRoZSB0ZXN0LCAzMiBvY3RldHM="
	err := wrong.Present(t.Context(), goodName, goodValue)
	if err == nil || strings.Contains(err.Error(), wrong.Secret) || !strings.Contains(err.Error(), "NOTAUTH") {
		t.Errorf("a wrong key: %v", err)
	}
	unsigned := &RFC2136{Server: server, Zone: "example.com"}
	err = unsigned.Present(t.Context(), goodName, goodValue)
	if err == nil || !strings.Contains(err.Error(), "REFUSED") {
		t.Error(err)
	}
}

// A record is waited for at every name server of its zone, but not for ever, and not where none can be asked.
func TestWatch(t *testing.T) {
	base := dnstest.Zone("example.com")
	record := fmt.Sprintf("%s 60 TXT %q\n", goodName, goodValue)
	world := dnstest.Start(t, base+record)
	var log bytes.Buffer
	w := &Watch{Port: fmt.Sprint(world.Port), Limit: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, n, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, n, world.Resolver.String())
		}}}
	w.Limit = time.Minute
	if err := w.Await(t.Context(), goodName, goodValue); err != nil || log.Len() != 0 {
		t.Fatal(err, log.String())
	}
	if servers := w.servers(t.Context(), goodName); len(servers) != 2 {
		t.Fatalf("%q", servers)
	}
	if err := world.Set(base + record + "!ns2 lacks " + goodName + " TXT"); err != nil {
		t.Fatal(err)
	}
	if w.shows(t.Context(), net.JoinHostPort("127.0.0.3", w.Port), goodName, goodValue) {
		t.Error("ns2 does not have it")
	}
	if !w.shows(t.Context(), net.JoinHostPort("127.0.0.2", w.Port), goodName, goodValue) {
		t.Error("ns1 has it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Await(ctx, goodName, goodValue); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := w.Await(t.Context(), "_acme-challenge.relay.nowhere.test", goodValue); err != nil {
		t.Errorf("a zone that cannot be found: %v", err)
	}
}

// What a program has started ends with it when its time is up: else each attempt leaves one more.
func TestExecEndsWhatItStarted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	gone, over := make(chan struct{}), make(chan struct{})
	started := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		select {
		case <-r.Context().Done():
			close(gone)
		case <-over:
		}
	}))
	defer started.Close()
	defer close(over)
	e := &Exec{Command: []string{script(t, testkit.Need(t, "curl")+" -s "+started.URL+" & wait")}}
	if err := e.Present(ctx, goodName, goodValue); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("it lives on")
	}
}
