package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/places"
	"postern/internal/testkit"
	"postern/relay/capture"
)

// pollEnv, in the environment of the test binary, turns it into postern, whose serve looks for changes that often.
const pollEnv = "POSTERN_TEST_POLL"

func TestMain(m *testing.M) {
	if period := os.Getenv(pollEnv); period != "" {
		poll, err := time.ParseDuration(period)
		if err != nil {
			panic(err)
		}
		os.Exit(run(rootCommandOf(&app{etc: places.Etc(), poll: poll}), os.Args[1:]))
	}
	os.Exit(testkit.Main(m))
}

// office is what a person sets up by following README: a data directory, a relay.toml of under 20 lines,
// an upstream with TLS and a login.
type office struct {
	t        *testing.T
	dir      string
	config   string
	address  string // localhost:port of the listener
	ca       *testkit.CA
	upstream *capture.Server
}

func newOffice(t *testing.T, extra string) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir(), ca: testkit.NewCA(t)}
	cert := o.ca.Leaf(testkit.LeafOptions{})
	var err error
	o.upstream, err = capture.Start(t.Context(), capture.Options{TLS: cert.Server(), Username: "relay",
		Password: "upstream secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.upstream.Close() })
	_, port, err := net.SplitHostPort(o.upstream.Addr())
	if err != nil {
		t.Fatal(err)
	}
	o.address = fmt.Sprintf("localhost:%d", testkit.FreePort(t))
	o.config = filepath.Join(o.dir, "relay.toml")
	o.write("upstream.secret", "upstream secret\n")
	o.write("relay.toml", fmt.Sprintf(`hostname = "localhost"
data_dir = "data"
tls.cert_file = %q
tls.key_file = %q
admin.address = ""
[[listener]]
address = %q
tls = "auto"
handoff = "1m"
[[upstream]]
name = "provider"
host = "localhost"
port = %s
ca_file = %q
username = "relay"
password = "file:upstream.secret"
%s`, cert.CertFile, cert.KeyFile, o.address, port, o.ca.File, extra))
	return o
}

func (o *office) write(name, text string) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// postern runs a command to its end and wants it to succeed.
func (o *office) postern(stdin string, args ...string) string {
	o.t.Helper()
	out := testkit.Run(o.t, stdin, append(args, "--config", o.config)...)
	if !out.OK {
		o.t.Fatalf("postern %s:\n%s", strings.Join(args, " "), out.Text)
	}
	return out.Text
}

func (o *office) serve() *testkit.Process {
	o.t.Helper()
	p := testkit.Postern(o.t, "serve", "--config", o.config)
	p.WaitLog(`msg"?[=:]"?ready`)
	return p
}

// serveWatchful starts a postern that looks for changes, and for conditions that trigger an alert, fifty times as often
// as a service: for tests that would only wait for it.
func (o *office) serveWatchful() *testkit.Process {
	o.t.Helper()
	self, err := os.Executable()
	if err != nil {
		o.t.Fatal(err)
	}
	p := testkit.Start(o.t, []string{pollEnv + "=20ms"}, self, "serve", "--config", o.config)
	p.WaitLog(`msg=ready`)
	return p
}

func (o *office) submission(subject string) testkit.Submission {
	return testkit.Submission{
		Server: o.address, TLS: testkit.StartTLS, CAFile: o.ca.File,
		Login: "anna@example.com", Password: "a chosen password",
		From: "anna@example.com", To: []string{"bob@example.net"},
		Message: []byte("From: Anna <anna@example.com>\r\nTo: bob@example.net\r\nSubject: " + subject +
			"\r\n\r\nbody of " + subject + "\r\n.\r\nend\r\n"),
	}
}

func TestRealClientsSendAndTheTraceTells(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	o.postern("", "dkim", "add", "example.com", "--now")
	var keys []struct {
		Name   string `json:"record_name"`
		Record string `json:"record"`
	}
	if err := json.Unmarshal([]byte(o.postern("", "dkim", "list", "--json")), &keys); err != nil || len(keys) != 2 {
		t.Fatalf("dkim list: %v, %v", keys, err)
	}
	records := map[string]string{}
	for _, k := range keys {
		records[k.Name] = k.Record
	}
	if out := o.postern("", "check"); !strings.Contains(out, "is right") {
		t.Errorf("check: %s", out)
	}
	if out := o.postern("", "upstream", "test", "provider"); !strings.Contains(out, "would take mail") {
		t.Errorf("upstream test: %s", out)
	}
	p := o.serve()
	for _, client := range testkit.Clients() {
		for _, mode := range []testkit.TLS{testkit.StartTLS, testkit.Implicit} {
			t.Run(client.Name+" "+string(mode), func(t *testing.T) {
				s := o.submission(client.Name + " " + string(mode))
				s.TLS = mode
				if out := client.Send(t, s); !out.OK {
					t.Fatalf("%s could not send:\n%s\nlog:\n%s", client.Name, out.Text, p.Log())
				}
				got, err := o.upstream.WaitMessage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(got.Data), "body of "+client.Name+" "+string(mode)) {
					t.Errorf("another message came:\n%s", got.Data)
				}
				if out := testkit.VerifyDKIM(t, got.Data, records); !out.OK {
					t.Errorf("signature: %s\n%s", out.Text, got.Data)
				}
			})
		}
	}
	t.Run("wrong password", func(t *testing.T) {
		s := o.submission("wrong")
		s.Password = "not the password"
		if out := testkit.Swaks(t, s); out.OK || !strings.Contains(out.Text, "535") {
			t.Errorf("got:\n%s", out.Text)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		s := o.submission("plain")
		s.TLS, s.Login = testkit.Plain, ""
		if out := testkit.Swaks(t, s); out.OK || !strings.Contains(out.Text, "530 5.7.0") {
			t.Errorf("got:\n%s", out.Text)
		}
	})
	o.traceHas("--from anna@example.com", `"kind":"accepted"`, `"kind":"delivered"`, "bob@example.net")
	o.traceHas("--kind auth-fail", "535")
	if log := p.Log(); strings.Contains(log, "a chosen password") || strings.Contains(log, "not the password") ||
		strings.Contains(log, "upstream secret") {
		t.Error("a password is in the log")
	}
	p.Stop()
}

// traceHas waits until `postern trace` answers with all of the texts: events are written in batches.
func (o *office) traceHas(flags string, texts ...string) {
	o.t.Helper()
	args := append([]string{"trace", "--json", "--config", o.config}, strings.Fields(flags)...)
	deadline := time.Now().Add(patience)
	for {
		out := testkit.Run(o.t, "", args...)
		missing := ""
		for _, text := range texts {
			if !strings.Contains(out.Text, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("trace %s never had %q:\n%s", flags, missing, out.Text)
		}
	}
}

func TestDemoOnce(t *testing.T) {
	out := testkit.Run(t, "", "demo", "--once")
	if !out.OK || !strings.Contains(out.Text, "signatures (RSA-2048 and Ed25519) of example.com verify") {
		t.Errorf("demo --once:\n%s", out.Text)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	p := o.serve()
	defer p.Stop()
	out := testkit.Run(t, "", "serve", "--config", o.config)
	if out.OK || !strings.Contains(out.Text, "another postern") {
		t.Errorf("got:\n%s", out.Text)
	}
}

func TestConfigurationMistakesAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "nonsense = 1\n")
	for _, command := range []string{"check", "serve"} {
		out := testkit.Run(t, "", command, "--config", o.config)
		if out.OK || !regexp.MustCompile(`relay\.toml:\d+: upstream\[1\]\.nonsense: `).MatchString(out.Text) {
			t.Errorf("%s:\n%s", command, out.Text)
		}
	}
}

func TestWrongUsageExitsWithTwo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"queue"}, {"queue", "nonsense"}, {"user", "add"}, {"serve", "--nonsense"},
		{"trace", "--since", "yesterday"}, {"trace", "--kind", "refuse"}, {"queue", "delete"}} {
		p := testkit.Postern(t, args...)
		err := p.Wait(patience)
		if err == nil || !strings.Contains(err.Error(), "exit status 2") {
			t.Errorf("postern %s: %v\n%s", strings.Join(args, " "), err, p.Log())
		}
	}
}

func TestAccountsLifeFromTheCommandLine(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	p := o.serve()
	defer p.Stop()
	out := o.postern("", "device", "add", "Scanner-2", "--sender", "scans@example.com", "--network", "127.0.0.0/8")
	m := regexp.MustCompile(`Password +(\S+)`).FindStringSubmatch(out)
	if m == nil || len(m[1]) > 31 || !strings.Contains(out, "scanner-2") {
		t.Fatalf("device add:\n%s", out)
	}
	s := o.submission("scan")
	s.Login, s.Password, s.From = "scanner-2", m[1], "scans@example.com"
	s.Message = []byte("From: scans@example.com\r\n\r\nscan\r\n")
	if got := testkit.Smtplib(t, s); !got.OK {
		t.Fatalf("the device cannot send:\n%s", got.Text)
	}
	if again := testkit.Run(t, "", "device", "add", "scanner-2", "--config", o.config); again.OK {
		t.Error("a login was added twice")
	}
	o.postern("", "user", "lock", "scanner-2")
	o.until("a locked login is refused", func() bool { return !testkit.Smtplib(t, s).OK })
	o.postern("", "user", "unlock", "scanner-2")
	o.until("an unlocked login is let in", func() bool { return testkit.Smtplib(t, s).OK })
	out = o.postern("", "user", "password", "scanner-2")
	changed := regexp.MustCompile(`Password +(\S+)`).FindStringSubmatch(out)
	o.until("the old password is refused", func() bool { return !testkit.Smtplib(t, s).OK })
	s.Password = changed[1]
	o.until("the new password is let in", func() bool { return testkit.Smtplib(t, s).OK })
	if list := o.postern("", "user", "list", "--json"); !strings.Contains(list, `"login": "scanner-2"`) ||
		strings.Contains(list, s.Password) {
		t.Errorf("user list:\n%s", list)
	}
	o.postern("", "user", "remove", "scanner-2")
	o.until("a removed login is refused", func() bool { return !testkit.Smtplib(t, s).OK })
}

// until tries again until something is as expected: the daemon looks for changes once a period.
func (o *office) until(what string, ok func() bool) {
	o.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			o.t.Fatalf("never: %s", what)
		}
	}
}
