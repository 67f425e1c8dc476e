// Package thunderbird drives Thunderbird in tests as a person would: write, send, read the dialog. Thunderbird shows
// the text of a reply, so that is what tests check.
//
// Failure semantics: a wait longer than maxWait fails the test. Without Thunderbird or an X server the test is
// skipped, or fails under CI (see testkit.Need). Both end with the test.
package thunderbird

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
)

// maxWait bounds every wait for something that must come. Only failing tests wait that long.
const maxWait = 2 * time.Minute

// Security is the connection security of an outgoing server, as Thunderbird numbers it.
type Security int

// The kinds of connection security.
const (
	None     Security = 0
	StartTLS Security = 2
	TLS      Security = 3 // "SSL/TLS"
)

// Server is an outgoing server of the account, on localhost.
type Server struct {
	Key      string // smtp1, smtp2, …
	Port     int
	Security Security
	Login    string // "": no authentication
	Password string // "": not stored, so a prompt asks for it
}

// Message is what to write.
type Message struct {
	Server  string // its Key
	From    string
	To      []string
	Subject string
	Body    string
}

// Outcome is the outcome of sending a message.
type Outcome struct {
	Sent    bool     // the window closed by itself
	Dialogs []string // title and text of the dialogs meanwhile
}

// Program is a running Thunderbird.
type Program struct {
	t       testing.TB
	control *marionette
}

// Start starts Thunderbird with an account that has these servers and trusts the authority in caPEM.
func Start(t testing.TB, caPEM []byte, servers ...Server) *Program {
	t.Helper()
	x, binary := testkit.Need(t, "Xvfb"), testkit.Need(t, "thunderbird")
	dir := t.TempDir()
	profile := filepath.Join(dir, "profile")
	if err := os.MkdirAll(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), preferences(servers), 0o600); err != nil {
		t.Fatal(err)
	}
	// Xvfb picks a free display and prints its number.
	xvfb := testkit.Start(t, nil, x, "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp")
	display := xvfb.WaitLog(`^(\d+)$`)[1]
	env := []string{
		"DISPLAY=:" + display, "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir,
		"MOZ_CRASHREPORTER_DISABLE=1", "NO_AT_BRIDGE=1", "LC_ALL=C.UTF-8",
	}
	port := testkit.Start(t, env, binary,
		"-profile", profile, "-no-remote", "-marionette", "-remote-allow-system-access").
		WaitLog(`Marionette\s+INFO\s+Listening on port (\d+)`)[1]
	control, err := dial(net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.conn.Close() })
	p := &Program{t: t, control: control}
	p.prepare(caPEM, servers)
	return p
}

func (p *Program) prepare(caPEM []byte, servers []Server) {
	p.t.Helper()
	block, _ := pem.Decode(caPEM)
	if block == nil {
		p.t.Fatal("no certificate to trust")
	}
	p.until("the main window", func() (ready bool) {
		p.run(prepare, &ready, base64.StdEncoding.EncodeToString(block.Bytes))
		return ready
	})
	for _, s := range servers {
		if s.Password != "" {
			p.run(password, nil, s.Key, s.Password)
		}
	}
}

// Send writes a message and sends it. It answers a password prompt with typed, unless that is empty, the final error
// with OK, and any other dialog with Cancel.
func (p *Program) Send(m Message, typed string) Outcome {
	p.t.Helper()
	p.run(compose, nil, map[string]any{
		"server": m.Server, "from": m.From, "to": strings.Join(m.To, ", "), "subject": m.Subject, "body": m.Body,
	})
	p.until("a window to write in", func() (ok bool) {
		p.run(send, &ok)
		return ok
	})
	var out Outcome
	p.until("an end of sending", func() bool {
		var seen view
		p.run(look, &seen)
		switch {
		case len(seen.Dialogs) > 0:
			d := seen.Dialogs[0]
			out.Dialogs = append(out.Dialogs, d.Title+"\n"+d.Text)
			p.answer(d, typed)
			return seen.Writing > 0 && d.ends()
		case seen.Writing == 0:
			out.Sent = true
			return true
		}
		return false
	})
	if !out.Sent {
		p.run(discard, nil)
		p.until("no window to write in", func() bool {
			var seen view
			p.run(look, &seen)
			return seen.Writing == 0 && len(seen.Dialogs) == 0
		})
	}
	return out
}

// view is what is on the screen.
type view struct {
	Writing int      `json:"writing"`
	Dialogs []dialog `json:"dialogs"`
}

type dialog struct {
	Title    string `json:"title"`
	Text     string `json:"text"`
	Password bool   `json:"password"`
}

// ends reports whether the dialog says that the message was not sent.
func (d dialog) ends() bool { return d.Title == "Send Message Error" }

// answer presses a button of the dialog and waits until it is gone.
func (p *Program) answer(d dialog, typed string) {
	p.t.Helper()
	button, text := "accept", any(nil)
	switch {
	case d.Password && typed != "":
		text = typed
	case !d.ends():
		button = "cancel"
	}
	p.run(answer, nil, button, text)
	p.until("an end of the dialog "+d.Text, func() bool {
		var seen view
		p.run(look, &seen)
		return len(seen.Dialogs) == 0 || seen.Dialogs[0] != d
	})
}

func (p *Program) run(script string, result any, args ...any) {
	p.t.Helper()
	if err := p.control.run(script, result, args...); err != nil {
		p.t.Fatal(err)
	}
}

// until waits until ok reports true.
func (p *Program) until(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(maxWait)
	defer deadline.Stop()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("Thunderbird: there never was %s", what)
		}
	}
}

// quiet keeps Thunderbird from prompting and from using the network.
var quiet = map[string]any{
	"marionette.port":                                0,
	"app.update.auto":                                false,
	"app.donation.eoy.version":                       99,
	"browser.region.network.url":                     "",
	"browser.safebrowsing.downloads.remote.enabled":  false,
	"calendar.integration.notify":                    false,
	"datareporting.policy.dataSubmissionEnabled":     false,
	"datareporting.policy.firstRunURL":               "",
	"extensions.getAddons.cache.enabled":             false,
	"extensions.update.enabled":                      false,
	"mail.chat.enabled":                              false,
	"mail.inappnotifications.enabled":                false,
	"mail.instrumentation.postUrl":                   "",
	"mail.provider.suppress_dialog_on_startup":       true,
	"mail.rights.version":                            1,
	"mail.shell.checkDefaultClient":                  false,
	"mail.spotlight.firstRunDone":                    true,
	"mail.winsearch.firstRunDone":                    true,
	"mailnews.show_send_progress":                    false,
	"mailnews.start_page.enabled":                    false,
	"mailnews.start_page_override.mstone":            "ignore",
	"network.captive-portal-service.enabled":         false,
	"network.connectivity-service.enabled":           false,
	"network.dns.disablePrefetch":                    true,
	"network.proxy.type":                             0,
	"security.OCSP.enabled":                          0,
	"services.settings.server":                       "",
	"toolkit.telemetry.enabled":                      false,
	"toolkit.telemetry.server":                       "",
	"mail.accountmanager.accounts":                   "account1",
	"mail.accountmanager.defaultaccount":             "account1",
	"mail.account.account1.identities":               "id1",
	"mail.account.account1.server":                   "server1",
	"mail.server.server1.type":                       "pop3", // a default account needs one; it is never asked
	"mail.server.server1.hostname":                   "127.0.0.1",
	"mail.server.server1.userName":                   "nobody",
	"mail.server.server1.name":                       "nobody",
	"mail.server.server1.login_at_startup":           false,
	"mail.server.server1.check_new_mail":             false,
	"mail.server.server1.download_on_biff":           false,
	"mail.identity.id1.fullName":                     "Anna",
	"mail.identity.id1.useremail":                    "anna@example.com",
	"mail.identity.id1.valid":                        true,
	"mail.identity.id1.compose_html":                 false,
	"mail.identity.id1.fcc":                          false,
	"mail.warn_on_send_accel_key":                    false,
	"mail.compose.warn_public_recipients.aggressive": false,
	"mail.compose.attachment_reminder":               false,
	"mail.compose.warn_public_recipients.threshold":  10000,
	"mail.SpellCheckBeforeSend":                      false,
	"messenger.options.getAttachmentsOnOpen":         false,
}

// preferences is the user.js of a profile.
func preferences(servers []Server) []byte {
	var b strings.Builder
	set := func(key string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // only for types other than strings, numbers and booleans
		}
		fmt.Fprintf(&b, "user_pref(%q, %s);\n", key, text)
	}
	for key, value := range quiet {
		set(key, value)
	}
	var keys []string
	for _, s := range servers {
		branch := "mail.smtpserver." + s.Key + "."
		keys = append(keys, s.Key)
		set(branch+"type", "smtp")
		set(branch+"hostname", "localhost")
		set(branch+"port", s.Port)
		set(branch+"try_ssl", int(s.Security))
		set(branch+"username", s.Login)
		set(branch+"authMethod", 1) // none
		if s.Login != "" {
			set(branch+"authMethod", 3) // normal password
		}
	}
	set("mail.smtpservers", strings.Join(keys, ","))
	return []byte(b.String())
}
