package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/capture"
	"postern/relay/dnscheck/dnstest"
)

// TestSetup is a newcomer's first run: setup, serve with what it wrote, and a client with the values that it printed.
func TestSetup(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), testkit.NewCA(t)
	cert := ca.Leaf(testkit.LeafOptions{})
	upstream, err := capture.Start(t.Context(), capture.Options{TLS: cert.Server(), Username: "relay",
		Password: "upstream secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	_, upstreamPort, _ := net.SplitHostPort(upstream.Addr())
	secret, conf := filepath.Join(dir, "secret"), filepath.Join(dir, "conf", "relay.toml")
	if err := os.WriteFile(secret, []byte("upstream secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	world := dnstest.Start(t, dnstest.Zone("example.com"))
	port, trust := testkit.FreePort(t), "SSL_CERT_FILE="+ca.File
	setup := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), testkit.Binary(t), "setup", "--yes", "--config", conf,
			"--provider", "generic", "--host", "localhost:"+upstreamPort, "--username", "relay",
			"--password", "file:"+secret, "--domain", "example.com", "--hostname", "localhost",
			"--login", "anna@example.com", "--network", "127.0.0.0/8,::1",
			"--cert", cert.CertFile, "--key", cert.KeyFile, "--port", fmt.Sprint(port), "--address", "127.0.0.1",
			"--resolver", world.Resolver.String())
		cmd.Env = append(os.Environ(), trust)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	text, err := setup()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, want := range []string{"The upstream would take mail from us.", "postern dkim dns example.com",
		"Sends as     anna@example.com", "The DKIM keys for example.com wait", "of the domain (postern doctor)",
		fmt.Sprintf("localhost port %d", port)} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	password := regexp.MustCompile(`Password +(\S+)`).FindStringSubmatch(text)
	if password == nil {
		t.Fatal(text)
	}
	before, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := setup(); err == nil || !strings.Contains(again, "overwrites nothing") {
		t.Errorf("a second time: %v\n%s", err, again)
	}
	if after, err := os.ReadFile(conf); err != nil || !bytes.Equal(before, after) {
		t.Errorf("relay.toml changed: %v", err)
	}

	p := testkit.Start(t, []string{trust}, testkit.Binary(t), "serve", "--config", conf)
	p.WaitLog(`msg=ready`)
	out := testkit.Swaks(t, testkit.Submission{Server: fmt.Sprintf("localhost:%d", port), TLS: testkit.StartTLS,
		CAFile: ca.File, Login: "anna@example.com", Password: password[1], From: "anna@example.com",
		To:      []string{"bob@example.net"},
		Message: []byte("From: anna@example.com\r\nTo: bob@example.net\r\nSubject: first\r\n\r\nhello\r\n")})
	if !out.OK {
		t.Fatal(out.Text)
	}
	got, err := upstream.WaitMessage(t.Context())
	if err != nil || !bytes.Contains(got.Data, []byte("Subject: first")) {
		t.Errorf("%s, %v", got.Data, err)
	}
}

// setupIn runs setup in this process, with answers on standard input.
func setupIn(t *testing.T, conf, answers string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommandOf(&app{etc: t.TempDir()})
	root.SetIn(strings.NewReader(answers))
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"setup", "--config", conf, "--address", "127.0.0.1", "--resolver",
		"127.0.0.1:1"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// A provider that cannot be reached leaves everything in place, says what is left, and exits 1.
func TestSetupAsksAndGoesOnWithoutTheProvider(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "relay.toml")
	mode := os.FileMode(0o600)
	if os.Geteuid() == 0 { // as with the directory of the service
		mode = 0o640
		if err := os.Chown(filepath.Dir(conf), -1, 4711); err != nil {
			t.Fatal(err)
		}
	}
	text, err := setupIn(t, conf,
		"genric\ngeneric\nlocalhost:1\n\nexample.com\nsmtp.example.com\n0\n2587, 2587\n2587\n\nscans@example.com\n\n")
	if err == nil {
		t.Fatal(text)
	}
	for _, want := range []string{`there is no profile "genric"; did you mean generic?`, `"0" is no port`,
		"there twice", "Ports that clients use [587,465]: ", "Its SMTP server: ",
		"Mend what the test of the provider found", "Login        scanner", "Sends as     scans@example.com"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	info, err := os.Stat(conf)
	if err != nil || info.Mode().Perm() != mode {
		t.Errorf("%v %v", info, err)
	}
}

// Another program has the port, as on many servers: everything else is made, and what is left to do says so.
func TestSetupWhereThePortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	conf := filepath.Join(t.TempDir(), "relay.toml")
	text, err := setupIn(t, conf, "", "--yes", "--provider", "generic", "--host", "localhost:1", "--username", "",
		"--domain", "example.com", "--port", port)
	for _, want := range []string{"is in use by another program", "Password     ",
		"1. Mend what is said of relay.toml"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if !errors.Is(err, errSilent) {
		t.Errorf("%v", err)
	}
}

// What goes wrong before the end leaves nothing behind.
func TestSetupLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers, says string
		args          []string
		prepare       func(dir string)
	}{
		"the input ends": {"generic\nlocalhost\n", "input ended", nil, nil},
		"a secret that is not there": {"", "POSTERN_NONE is not set",
			[]string{"--yes", "--provider", "sendgrid", "--password", "env:POSTERN_NONE", "--domain", "example.com"},
			nil},
		"a secret file that is not there": {"", "cannot be read",
			[]string{"--yes", "--provider", "sendgrid", "--password", "file:none", "--domain", "example.com"}, nil},
		"nothing to go by": {"", "--domain", []string{"--yes", "--provider", "sendgrid"}, nil},
		"a file in the way": {"sendgrid\n\nthe key\nexample.com\n\n\n\n\n\n", "overwrites nothing", nil,
			func(dir string) {
				os.WriteFile(filepath.Join(dir, "upstream-password"), []byte("other"), 0o600)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.prepare != nil {
				c.prepare(dir)
			}
			before, _ := os.ReadDir(dir)
			text, err := setupIn(t, filepath.Join(dir, "relay.toml"), c.answers, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v\n%s", err, text)
			}
			if after, _ := os.ReadDir(dir); len(after) != len(before) {
				t.Errorf("left behind: %v", after)
			}
		})
	}
}

// TestFlagsOfSetupGivenTwice: ports add up, as a list does; one value for a question that wants one is not guessed.
func TestFlagsOfSetupGivenTwice(t *testing.T) {
	t.Parallel()
	var l commaList
	for _, port := range []string{"587", "465"} {
		if err := l.Set(port); err != nil {
			t.Fatal(err)
		}
	}
	if l.String() != "587,465" {
		t.Errorf("the ports are %q", l)
	}
}
