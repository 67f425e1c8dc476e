package console

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/trace"
)

// TestMailProgram: what is typed into a mail program, in German too, the records, and Apple's profile.
func TestMailProgram(t *testing.T) {
	r := learner(t)
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com"}))
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "mute"}))
	body := r.page("/logins/anna@example.com/client", in("de"))
	for _, want := range []string{"relay.example.com", "<dd>587</dd>", "STARTTLS", "anna@example.com",
		"imap.example.com",
		"_submission._tcp.example.com", "E-Mail-Konto hinzuf", "Mailprogramme nach RFC 6186",
		"/logins/anna@example.com/profile.mobileconfig"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if at := strings.Index(body, `lang="en"`); at >= 0 {
		t.Errorf("some of it is English: %s", body[at:min(len(body), at+300)])
	}
	w := r.ask(person(operate.Viewer), "GET", "/logins/anna@example.com/profile.mobileconfig", nil)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "com.apple.mail.managed") ||
		!strings.Contains(w.Header().Get("Content-Disposition"), ".mobileconfig") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if body := r.page("/logins/mute/client"); strings.Contains(body, "profile.mobileconfig") ||
		!strings.Contains(body, "has no address") {
		t.Errorf("%s", body)
	}
	for path, want := range map[string]int{"/logins/nobody/client": 404, "/logins/mute/profile.mobileconfig": 400,
		"/logins/" + url.PathEscape(hostile) + "/client": 404, "/logins/nobody/profile.mobileconfig": 404} {
		w := r.ask(person(operate.Viewer), "GET", path, nil)
		harmless(t, path, w.Body.String())
		if w.Code != want && (w.Code != 400 || !strings.Contains(path, "%")) { // which is no login
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	r.look.Lookup = nil
	r = newRig(t, func(r *rig) {
		r.look.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			return nil, &net.DNSError{IsNotFound: true}
		}
	})
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com"}))
	if body := r.page("/logins/anna@example.com/client"); !strings.Contains(body, "No name server knows") {
		t.Errorf("%s", body)
	}
}

// TestMailProgramsInGerman: whatever does not fit is said in German.
func TestMailProgramsInGerman(t *testing.T) {
	for name, change := range map[string][2]string{
		"other domain": {`domains = ["example.com"]`, `domains = ["example.org"]`},
		"no domains":   {`domains = ["example.com"]`, `domains = []`},
		"oauth":        {`host = "imap.example.com"`, "host = \"imap.example.com\"\nauthentication = \"oauth2\""},
		"local part": {`url = "https://relay.example.com"`,
			"url = \"https://relay.example.com\"\nusername = \"localpart\""},
		"own server": {`url = "https://relay.example.com"`,
			"url = \"https://relay.example.com\"\naddress = \":443\""},
		"no incoming": {"[autoconfig.incoming]\nhost = \"imap.example.com\"\n", ""},
		"implicit":    {`address = ":587"`, "address = \":465\"\ntls = \"implicit\""},
		"clear":       {`address = ":587"`, "address = \":587\"\ntls = \"none\""},
	} {
		r := learner(t)
		r.config = config.Parse("relay.toml", []byte(strings.Replace(learningOffice, change[0], change[1], 1)))
		r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com", Locked: true, LockReason: "by anna",
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}))
		body := r.page("/logins/anna@example.com/client", in("de"))
		for _, m := range regexp.MustCompile(`lang="en">([^<]*)`).FindAllStringSubmatch(body, -1) {
			t.Errorf("%s: no German for %q", name, m[1])
		}
	}
}

// TestKeysOfALogin: added, shown, and removed after a question; a private key is not shown again.
func TestKeysOfALogin(t *testing.T) {
	r := learner(t)
	r.accounts(2)
	who, key := person(operate.Operator), strings.Repeat("1a", 32)
	body := r.page("/logins/scanner-00001")
	for _, want := range []string{"SCRAM-SHA-256", "EXTERNAL", "does not work", "no SCRAM keys yet", "None yet."} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	form := url.Values{"login": {"scanner-00001"}, "key": {"hello <b>"}}
	body = r.ask(who, "POST", "/logins/act/pin", form, in("de")).Body.String()
	if !strings.Contains(body, "hello &lt;b&gt;</textarea>") || !strings.Contains(body, "Darin steht weder") {
		t.Errorf("what was pasted is gone: %s", body)
	}
	form.Set("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
	if body := r.ask(who, "POST", "/logins/act/pin", form).Body.String(); strings.Contains(body, "AAAA") {
		t.Error("a private key is shown again")
	}
	form.Set("key", key)
	if w := r.ask(who, "POST", "/logins/act/pin", form); w.Header().Get("Location") != "/logins/scanner-00001#keys" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	keys, err := r.store.Certificates(t.Context(), "scanner-00001")
	if r.must(err); len(keys) != 1 || !strings.Contains(r.page("/logins/scanner-00001"), key) {
		t.Errorf("%v", keys)
	}
	if body := r.page2(operate.Viewer, "/logins/scanner-00001"); strings.Contains(body, "/logins/act/pin") ||
		strings.Contains(body, "/logins/act/unpin") || !strings.Contains(body, key) {
		t.Error("a viewer gets buttons, or does not see the key")
	}
	r.confirmedBy(who, "/logins/act/unpin", form)
	if keys, err = r.store.Certificates(t.Context(), "scanner-00001"); err != nil || len(keys) != 0 {
		t.Errorf("%v, %v", keys, err)
	}
	form.Set("confirmed", "yes")
	for _, bad := range []string{key, "x", hostile} {
		form.Set("key", bad)
		if w := r.ask(who, "POST", "/logins/act/unpin", form); w.Code != http.StatusNotFound &&
			w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", bad, w.Code)
		}
	}
}

// TestDeviceTroubleInWords: what kept a device from a connection stands on its page, with the encryption that it uses.
func TestDeviceTroubleInWords(t *testing.T) {
	r := learner(t)
	r.accounts(2)
	r.tell(trace.Event{Time: r.now.Add(-time.Minute), Kind: trace.Refused, Client: "10.0.0.31", Listener: "devices",
		Detail: "the client offers only TLS 1.0, and this listener takes 1.2 and newer"})
	body := r.page("/logins/scanner-00001")
	if !strings.Contains(body, "the client offers only TLS 1.0") || !strings.Contains(body, "not encrypted") {
		t.Errorf("%s", body)
	}
}

// TestUnreachedDevice: its page and its card say that no listener is open to it.
func TestUnreachedDevice(t *testing.T) {
	r := newRig(t, func(r *rig) { r.config = config.Parse("relay.toml", []byte(exampleListener)) })
	form := url.Values{"device": {"1"}, "login": {"scanner-9"}, "senders": {"scans@example.com"},
		"networks": {"10.0.6.30"}}
	card := r.ask(person(operate.Operator), "POST", "/logins/act/add", form).Body.String()
	for name, body := range map[string]string{"card": card, "page": r.page("/logins/scanner-9")} {
		if !strings.Contains(body, "No listener takes connections from the network of this device.") {
			t.Errorf("%s: %s", name, body)
		}
	}
	form.Set("login", "scanner-8")
	form.Set("networks", "10.0.5.30")
	if r.ask(person(operate.Operator), "POST", "/logins/act/add", form); strings.Contains(r.page("/logins/scanner-8"),
		"No listener takes") {
		t.Error("one that a listener takes is told of, too")
	}
}
