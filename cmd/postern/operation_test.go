package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/release"
	"postern/internal/testkit"
)

// withAdmin switches the admin address of an office on and returns its base URL.
func (o *office) withAdmin() string {
	o.t.Helper()
	admin := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(o.t))
	o.edit(`admin.address = ""`, fmt.Sprintf("admin.address = %q", admin))
	return "http://" + admin
}

// edit replaces a piece of relay.toml.
func (o *office) edit(old, new string) {
	o.t.Helper()
	b, err := os.ReadFile(o.config)
	if err != nil {
		o.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		o.t.Fatalf("relay.toml has no %q", old)
	}
	o.write("relay.toml", strings.Replace(string(b), old, new, 1))
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestHealthReadinessAndMetrics(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	base := o.withAdmin()
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	defer p.Stop()
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(t, base+path); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if out := testkit.Smtplib(t, o.submission("metrics")); !out.OK {
		t.Fatal(out.Text)
	}
	wrong := o.submission("wrong")
	wrong.Password = "not the password"
	testkit.Smtplib(t, wrong)
	_, metrics := get(t, base+"/metrics")
	for _, want := range []string{
		`postern_messages_accepted_total{how="handed off",listener="submission"} 1`,
		`postern_delivery_results_total{class="delivered",upstream="provider"} 1`,
		`postern_auth_total{outcome="ok"} 1`,
		`",version="` + release.Version() + `"} 1`, // of postern_build_info
		`postern_queue_messages{state="waiting"} 0`,
		`postern_upstream_paused{identity="relay",upstream="provider"} 0`,
		`postern_store_commits_total `,
		`postern_certificate_expiry_timestamp_seconds{`,
		`postern_delivery_seconds_count{upstream="provider"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	if !strings.Contains(metrics, `postern_auth_total{outcome="refused"}`) {
		t.Error("refused logins are not counted")
	}
}

func TestHangupAndFileChangeReload(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "\n[[policy]]\nrecipients = [\"*@example.net\"]\n")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serveWatchful()
	defer p.Stop()
	if out := testkit.Smtplib(t, o.submission("before")); !out.OK {
		t.Fatal(out.Text)
	}
	o.edit("*@example.net", "*@example.org")
	p.Signal(syscall.SIGHUP)
	p.WaitLog("configuration reloaded")
	if out := testkit.Smtplib(t, o.submission("after")); out.OK || !strings.Contains(out.Text, "550") {
		t.Errorf("the new policy is not in force:\n%s", out.Text)
	}
	o.edit("*@example.org", "*@example.net")
	o.until("a changed file is noticed", func() bool { return testkit.Smtplib(t, o.submission("noticed")).OK })
	o.edit(`recipients = ["*@example.net"]`, `recipients = ["not an address"]`)
	p.Signal(syscall.SIGHUP)
	p.WaitLog("reload refused.*relay.toml:[0-9]+")
	if out := testkit.Smtplib(t, o.submission("still")); !out.OK {
		t.Errorf("a refused reload changed something:\n%s", out.Text)
	}
}

func TestNewListenerByReload(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	defer p.Stop()
	second := fmt.Sprintf("localhost:%d", testkit.FreePort(t))
	b, err := os.ReadFile(o.config)
	if err != nil {
		t.Fatal(err)
	}
	o.write("relay.toml", string(b)+fmt.Sprintf("\n[[listener]]\nname = \"second\"\naddress = \"%s\"\ntls = "+
		"\"implicit\"\n", strings.Replace(second, "localhost", "127.0.0.1", 1)))
	p.Signal(syscall.SIGHUP)
	p.WaitLog("msg=listening listener=second")
	s := o.submission("second")
	s.Server, s.TLS = second, testkit.Implicit
	if out := testkit.Curl(t, s); !out.OK {
		t.Errorf("the new listener does not take mail:\n%s", out.Text)
	}
	o.write("relay.toml", string(b))
	p.Signal(syscall.SIGHUP)
	p.WaitLog("listener closed")
	o.until("the removed listener is closed", func() bool {
		c, err := net.Dial("tcp", second)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// TestSystemdIsTold speaks systemd's notification protocol (sd_notify(3)).
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	path := filepath.Join(o.dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := testkit.Start(t, []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"}, testkit.Binary(t), "serve",
		"--config", o.config)
	told := func(want string) {
		t.Helper()
		buf := make([]byte, 1024)
		for {
			socket.SetReadDeadline(time.Now().Add(patience))
			n, err := socket.Read(buf)
			if err != nil {
				t.Fatalf("systemd was never told %s: %v", want, err)
			}
			if strings.Contains(string(buf[:n]), want) {
				return
			}
		}
	}
	told("READY=1")
	told("WATCHDOG=1")
	p.Signal(syscall.SIGHUP)
	told("RELOADING=1")
	told("READY=1")
	p.Signal(syscall.SIGTERM)
	told("STOPPING=1")
	if err := p.Wait(patience); err != nil {
		t.Error(err)
	}
}

// TestTerminationDrains: what is in the middle of a transfer at SIGTERM is answered, and its answer holds.
func TestTerminationDrains(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	c := o.dial()
	c.cmd(235, "AUTH PLAIN %s", plainResponse("anna@example.com", "a chosen password"))
	c.cmd(250, "MAIL FROM:<anna@example.com>")
	c.cmd(250, "RCPT TO:<bob@example.net>")
	c.cmd(354, "DATA")
	c.print("From: anna@example.com\r\n\r\nfirst half\r\n")
	p.Signal(syscall.SIGTERM)
	p.WaitLog("shutting down")
	c.print("second half\r\n")
	c.cmd(250, ".")
	if err := p.Wait(patience); err != nil {
		t.Error(err)
	}
	got, err := o.upstream.WaitMessage(t.Context())
	if err != nil || !strings.Contains(string(got.Data), "second half") {
		t.Errorf("%s, %v", got.Data, err)
	}
}

// TestStatus: without a daemon, with one, and with one that cannot send; /readyz says the same in short.
func TestStatus(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "\n[delivery]\nretry = [\"1s\"]\n")
	base := o.withAdmin()
	status := func(want string, ok bool) string {
		t.Helper()
		out := testkit.Run(t, "", "--config", o.config, "status")
		if first, _, _ := strings.Cut(out.Text, "\n"); out.OK != ok || !strings.HasPrefix(first, want) {
			t.Errorf("status, want %v %q:\n%s", ok, want, out.Text)
		}
		return out.Text
	}
	status("No mail can leave: postern does not run. Start it with: postern serve", false)
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	text := status("Mail can leave.", true)
	for _, want := range []string{"LISTENER", "submission", "UPSTREAM", "provider", "working", "QUEUE  0 wait",
		"CERTIFICATE", "DISK", "free"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	o.upstream.Close()
	if out := testkit.Smtplib(t, o.submission("waits")); !out.OK {
		t.Fatal(out.Text)
	}
	text = status("No mail can leave: provider is unreachable for ", false)
	if !strings.Contains(text, "refuses connections") || strings.Contains(text, "upstream secret") {
		t.Errorf("why:\n%s", text)
	}
	if code, body := get(t, base+"/readyz"); code != 200 ||
		!strings.HasPrefix(body, "ready\nupstream provider: unreachable, since ") || strings.Contains(body, "anna") {
		t.Errorf("readyz: %d %s", code, body)
	}
	p.Kill()
	status("No mail can leave: postern does not run, and mail waits (1 message).", false)
}
