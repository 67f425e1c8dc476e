package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/fakeprovider"
)

// consentOffice is a configuration whose upstream wants a person's consent.
type consentOffice struct {
	t      *testing.T
	config string
	login  *fakeprovider.OAuth
	smtp   *fakeprovider.SMTP
}

const consenter = "office@contoso.example"

func newConsentOffice(t *testing.T, flow string, o fakeprovider.OAuthOptions) *consentOffice {
	t.Helper()
	o.Microsoft = true
	f := &consentOffice{t: t, login: fakeprovider.NewOAuth(o)}
	f.login.AddClient(fakeprovider.Client{ID: "postern"})
	web, err := f.login.Listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	ca := testkit.NewCA(t)
	f.smtp = fakeprovider.NewSMTP(fakeprovider.SMTPOptions{TLS: ca.Leaf(testkit.LeafOptions{}).Server(),
		Valid: f.login.Valid})
	port, err := f.smtp.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.smtp.Close)
	f.config = filepath.Join(t.TempDir(), "relay.toml")
	text := fmt.Sprintf(`hostname = "relay.example.com"
data_dir = "data"
[[upstream]]
name = "m365"
host = "localhost"
port = %d
ca_file = %q
username = %q
[upstream.oauth]
provider = "microsoft"
flow = %q
client_id = "postern"
token_url = "%s/token"
auth_url = "%s/authorize"
device_url = "%s/devicecode"
`, port, ca.File, consenter, flow, web.URL, web.URL, web.URL)
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// output collects what a command prints while it runs.
type output struct{ testkit.Log }

// wait returns the first match of a pattern in what was printed.
func (o *output) wait(t *testing.T, pattern string) string {
	t.Helper()
	re, deadline := regexp.MustCompile(pattern), time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if m := re.FindString(o.String()); m != "" {
			return m
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never printed %s:\n%s", pattern, o)
		}
	}
}

// start runs a command; the error comes when it ends.
func (f *consentOffice) start(in io.Reader, args ...string) (*output, <-chan error) {
	out, done := new(output), make(chan error, 1)
	root := rootCommand()
	root.SetArgs(append(args, "--config", f.config))
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(out)
	go func() { done <- root.ExecuteContext(f.t.Context()) }()
	return out, done
}

func (f *consentOffice) run(args ...string) (string, error) {
	out, done := f.start(strings.NewReader(""), args...)
	err := <-done
	return out.String(), err
}

func (f *consentOffice) wantLogin() {
	f.t.Helper()
	out, err := f.run("upstream", "test", "m365")
	if err != nil || !strings.Contains(out, "XOAUTH2 as "+consenter) {
		f.t.Errorf("upstream test: %v\n%s", err, out)
	}
	sealed, err := os.ReadFile(filepath.Join(filepath.Dir(f.config), "data", "seal.key"))
	if err != nil || len(sealed) != 32 {
		f.t.Errorf("the key: %d octets, %v", len(sealed), err)
	}
}

func TestLoginByDeviceCode(t *testing.T) {
	t.Parallel()
	f := newConsentOffice(t, "device-code", fakeprovider.OAuthOptions{DeviceInterval: time.Second})
	if out, err := f.run("upstream", "test", "m365"); err == nil ||
		!strings.Contains(out, "postern upstream login m365") {
		t.Errorf("before the login: %v\n%s", err, out)
	}
	out, done := f.start(strings.NewReader(""), "upstream", "login", "m365")
	code := strings.TrimSpace(out.wait(t, `\n  [A-Z2-7]{4}-[A-Z2-7]{4}\n`))
	if !f.login.ConsentDevice(code, consenter) {
		t.Errorf("the code %s is not known", code)
	}
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out.wait(t, `The consent for upstream m365 is stored`)
	if strings.Contains(out.String(), "rt.") || strings.Contains(out.String(), "at.") {
		t.Errorf("a token is shown:\n%s", out)
	}
	f.wantLogin()
}

func TestLoginByPaste(t *testing.T) {
	t.Parallel()
	f := newConsentOffice(t, "authorization-code", fakeprovider.OAuthOptions{Consenter: consenter})
	in, terminal := io.Pipe()
	defer terminal.Close()
	out, done := f.start(in, "upstream", "login", "m365")
	page := strings.TrimSpace(out.wait(t, `http://127\.0\.0\.1:\d+/authorize\S+`))
	fmt.Fprintln(terminal, "what am I to paste?")
	out.wait(t, "paste the whole address")
	browser := &http.Client{CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := browser.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	fmt.Fprintln(terminal, resp.Header.Get("Location"))
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.wantLogin()
}

func TestLoginOnThisMachine(t *testing.T) {
	t.Parallel()
	f := newConsentOffice(t, "authorization-code", fakeprovider.OAuthOptions{Consenter: consenter})
	in, terminal := io.Pipe()
	defer terminal.Close()
	out, done := f.start(in, "upstream", "login", "m365")
	resp, err := http.Get(out.wait(t, `http://127\.0\.0\.1:\d+/authorize\S+`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.wantLogin()
}

func TestLoginRefusals(t *testing.T) {
	t.Parallel()
	f := newConsentOffice(t, "device-code", fakeprovider.OAuthOptions{DeviceInterval: time.Second})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"upstream", "login", "nobody"}, `there is no upstream "nobody"`},
		{[]string{"upstream", "login", "m365", "--flow", "password"}, "--flow"},
	} {
		if _, err := f.run(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
	out, done := f.start(strings.NewReader(""), "upstream", "login", "m365")
	f.login.ConsentDevice(strings.TrimSpace(out.wait(t, `\n  [A-Z2-7]{4}-[A-Z2-7]{4}\n`)), "") // declines
	if err := <-done; err == nil || !strings.Contains(err.Error(), "declined") {
		t.Errorf("declined: %v", err)
	}
	f.login.Fail(fakeprovider.Fault{Endpoint: "device", AADSTS: 53003, Error: "access_denied",
		Description: "Access has been blocked by Conditional Access policies."})
	if _, err := f.run("upstream", "login", "m365"); err == nil ||
		!strings.Contains(err.Error(), "--flow authorization-code") {
		t.Errorf("blocked: %v", err)
	}
}
