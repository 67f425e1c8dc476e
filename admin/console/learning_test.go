package console

import (
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/clientsetup"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/queue"
	"postern/relay/trace"
)

// learningOffice has a listener where devices can be learned, a CA, and programs that set themselves up.
const learningOffice = `hostname = "relay.example.com"
[auth]
mechanisms = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "EXTERNAL"]
[tls.acme]
directory_url = "https://127.0.0.1:1/dir"
challenges = ["dns-01"]
[tls.acme.acmedns]
username = "u"
password = "p"
full_domain = "d420.auth.example.com"
url = "https://127.0.0.1:1"
[autoconfig]
domains = ["example.com"]
url = "https://relay.example.com"
[autoconfig.incoming]
host = "imap.example.com"
[[listener]]
name = "submission"
address = ":587"
[[listener]]
name = "devices"
address = ":2525"
tls = "auto"
profile = "appliance"
networks = ["10.0.5.0/24"]
[[upstream]]
name = "office"
provider = "microsoft365"
username = "relay@example.com"
[[policy]]
logins = ["office"]
senders = ["*@example.com"]
`

// learner is a rig on that office.
func learner(t testing.TB) *rig {
	return newRig(t, func(r *rig) {
		r.now = time.Now()
		r.config = config.Parse("relay.toml", []byte(learningOffice))
	})
}

// seen makes a device that was seen while learning: it began an hour ago and goes on. Each has a message that is held.
func (r *rig) seen(addresses ...string) {
	r.t.Helper()
	r.must(r.store.Learn(r.t.Context(), devices.Learning{Listener: "devices", By: "anna",
		Network: netip.MustParsePrefix("10.0.5.0/24"), Began: r.now.Add(-time.Hour),
		Until: r.now.Add(43 * time.Minute)}))
	for i, address := range addresses {
		m := r.message(900+i, time.Minute)
		m.Login, m.Listener, m.Held = devices.LearningLogin, "devices", true
		m.HoldReason = "from " + address + ", which is being learned"
		m.Envelope.From = mail.Address{Local: "copier", Domain: "example.com"}
		r.must(r.store.Add(r.t.Context(), queue.NewMessage{Message: m,
			Content: mail.BytesContent("From: copier@example.com\r\nSubject: x\r\n\r\nx")}))
		r.tell(trace.Event{Time: r.now.Add(-time.Minute), Kind: trace.Accepted, ID: m.ID, Login: devices.LearningLogin,
			Listener: "devices", Client: address, Hello: "RNP002673A1B2C3", TLS: "TLS 1.2",
			From: "copier@example.com", To: "ben@gmail.com"})
	}
}

// TestLearning: begun for a network and a time, seen with what is left of it, and stopped.
func TestLearning(t *testing.T) {
	r := learner(t)
	who := person(operate.Admin)
	body := r.page("/learning")
	for _, want := range []string{`value="10.0.5.0/24"`, "No device waits for you.", "without a password"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	for network, want := range map[string]string{"10.0.6.0/24": "liegt nicht in den Netzen",
		"10.0.5.300": "ist kein Netz", "10.0.0.0/8": "zu weit", hostile: "ist kein Netz",
		"10.0.5.7/24": "mitten in ihrem Netz"} {
		w := r.ask(who, "POST", "/learning/act/begin", url.Values{"network": {network}, "minutes": {"60"}}, in("de"))
		harmless(t, network, w.Body.String())
		if !strings.Contains(w.Body.String(), want) || !strings.Contains(w.Body.String(), `role="alert"`) {
			t.Errorf("%s: no %q in %s", network, want, w.Body)
		}
	}
	for _, minutes := range []string{"", "0", "121", "-1", "9999999999999999999"} {
		w := r.ask(who, "POST", "/learning/act/begin", url.Values{"network": {"10.0.5.31"}, "minutes": {minutes}})
		if !strings.Contains(w.Body.String(), "out of range") {
			t.Errorf("%q minutes: %s", minutes, w.Body)
		}
	}
	w := r.ask(who, "POST", "/learning/act/begin", url.Values{"network": {"10.0.5.31"}, "minutes": {"30"}})
	known, err := r.store.KnownDevices(t.Context())
	if r.must(err); w.Code != http.StatusSeeOther || len(known.Learnings) != 1 || known.Learnings[0].By != "anna" ||
		known.Learnings[0].Until.Sub(known.Learnings[0].Began) != 30*time.Minute {
		t.Fatalf("%d %+v", w.Code, known)
	}
	r.now = time.Now()
	for _, path := range []string{"/learning", "/logins"} {
		if body := r.page(path); !strings.Contains(body, "Devices of 10.0.5.31/32 may send without logging in.") ||
			!strings.Contains(body, "in 30 min") && !strings.Contains(body, "in 29 min") {
			t.Errorf("%s: %s", path, body)
		}
	}
	if body := r.page2(operate.Viewer, "/learning"); strings.Contains(body, "<form method=\"post\"") &&
		strings.Contains(body, "/learning/act/") {
		t.Error("a viewer gets buttons")
	}
	for range 2 { // the second finds nothing to stop
		w = r.ask(who, "POST", "/learning/act/stop", url.Values{"listener": {"devices"}})
	}
	r.now = time.Now()
	if body := r.page("/learning"); w.Code != http.StatusSeeOther || strings.Contains(body, "Learning now") {
		t.Errorf("%d %s", w.Code, body)
	}
}

// TestNoListenerForLearning: the page says what relay.toml needs, and that example is one that works.
func TestNoListenerForLearning(t *testing.T) {
	r := newRig(t)
	body := r.page("/learning", in("de"))
	if !strings.Contains(body, "profile = &#34;appliance&#34;") || strings.Contains(body, "/learning/act/begin") {
		t.Errorf("%s", body)
	}
	c := config.Parse("relay.toml", []byte("hostname = \"relay.example.com\"\n"+exampleListener))
	r.config = c
	if body := r.page("/learning"); !strings.Contains(body, `value="10.0.5.0/24"`) {
		t.Errorf("%s", body)
	}
	r.config = config.Parse("relay.toml", []byte(strings.Replace(exampleListener, ":2525", "127.0.0.1:2525", 1)))
	if body := r.page("/learning"); !strings.Contains(body, "No device can reach this server") {
		t.Errorf("a listener of this machine alone: %s", body)
	}
}

// TestAcceptDevice: nothing is accepted by itself; with senders it becomes an account, and its card.
func TestAcceptDevice(t *testing.T) {
	r := learner(t)
	r.seen("10.0.5.31", "10.0.5.32")
	body := r.page("/learning")
	for _, want := range []string{"10.0.5.31", "RNP002673A1B2C3", "copier@example.com", "TLS 1.2",
		"None of them is accepted"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if users, err := r.store.Users(t.Context()); err != nil || len(users) != 0 {
		t.Fatalf("%v %v", users, err)
	}
	body = r.page("/learning/device?address=10.0.5.31")
	for _, want := range []string{`value="rnp002673a1b2c3"`, "copier@example.com</textarea>", "fixed address"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if strings.Contains(body, "checked") {
		t.Error("its mail would be released without a word")
	}
	who := person(operate.Operator)
	form := url.Values{"address": {"10.0.5.31"}, "login": {"copier 1"}, "senders": {""}, "release": {"1"}}
	for senders, want := range map[string]string{"": "name an address", "copier@example.com": "login"} {
		form.Set("senders", senders)
		w := r.ask(who, "POST", "/learning/act/accept", form)
		if !strings.Contains(w.Body.String(), `role="alert"`) || !strings.Contains(w.Body.String(), want) ||
			!strings.Contains(w.Body.String(), "checked") {
			t.Errorf("%q: %s", senders, w.Body)
		}
	}
	form.Set("login", "copier-1")
	form.Set("senders", "copier@example.com")
	w := r.ask(who, "POST", "/learning/act/accept", form)
	body = w.Body.String()
	for _, want := range []string{"At 10.0.5.31 it needs no login", "1 message that was held of it goes out now",
		"<dd>2525</dd>", "off at 10.0.5.31", `class="secret"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the card lacks %q: %s", want, body)
		}
	}
	u, err := r.store.User(t.Context(), "copier-1")
	if r.must(err); !u.Device || len(u.Networks) != 1 || u.Senders[0] != "copier@example.com" {
		t.Errorf("%+v", u)
	}
	known, err := r.store.KnownDevices(t.Context())
	if r.must(err); len(known.Places) != 1 || known.Places[0].Login != "copier-1" {
		t.Errorf("%+v", known)
	}
	if m, err := r.store.Get(t.Context(), id(900)); err != nil || m.Held {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := r.store.Get(t.Context(), id(901)); err != nil || !m.Held {
		t.Errorf("another's: %+v, %v", m, err)
	}
	for _, address := range []string{"10.0.5.31", "10.0.5.99", "", hostile} {
		w := r.ask(who, "GET", "/learning/device?address="+url.QueryEscape(address), nil)
		harmless(t, "accept", w.Body.String())
		if w.Code != http.StatusNotFound {
			t.Errorf("%q: %d", address, w.Code)
		}
	}
}

// TestForgetDevice: after a question; what is held goes where that is ticked.
func TestForgetDevice(t *testing.T) {
	r := learner(t)
	r.seen("10.0.5.31", "10.0.5.32")
	who := person(operate.Operator)
	for i, address := range []string{"10.0.5.31", "10.0.5.32"} {
		w := r.ask(who, "POST", "/learning/act/forget", url.Values{"address": {address}})
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Forget the device at "+address+"?") {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		form := hidden(w.Body.String())
		if i == 1 {
			form.Set("delete", "1")
		}
		w = r.ask(who, "POST", "/learning/act/forget", form)
		if w.Header().Get("Location") != "/learning" || strings.Contains(r.page("/learning"), ">"+address+"<") {
			t.Errorf("%d, %s is still there", w.Code, address)
		}
		if _, err := r.store.Get(t.Context(), id(900+i)); (err == nil) != (i == 0) {
			t.Errorf("%s: its mail: %v", address, err)
		}
	}
}

// TestRolesOfDevices: the pages and actions of learning, certificates and keys, and who may.
func TestRolesOfDevices(t *testing.T) {
	r := learner(t)
	r.accounts(2)
	r.seen("10.0.5.31")
	for path, least := range map[string]operate.Role{"/learning": operate.Viewer,
		"/learning/device?address=10.0.5.31": operate.Operator, "/certificates": operate.Viewer,
		"/logins/scanner-00001/client": operate.Viewer} {
		r.pageNeeds(path, least)
	}
	form := url.Values{"login": {"scanner-00001"}, "address": {"10.0.5.31"}, "name": {"relay.example.com"},
		"network": {"10.0.5.31"}, "minutes": {"15"}, "senders": {"a@example.com"}, "confirmed": {"yes"},
		"key": {strings.Repeat("1a", 32)}}
	for path, least := range map[string]operate.Role{"/learning/act/begin": operate.Admin,
		"/learning/act/stop": operate.Admin, "/learning/act/accept": operate.Operator,
		"/learning/act/forget": operate.Operator, "/certificates/act/renew": operate.Operator,
		"/certificates/act/records": operate.Operator, "/logins/act/pin": operate.Operator,
		"/logins/act/unpin": operate.Operator} {
		r.actionNeeds(path, least, form)
	}
	if users, err := r.store.Users(t.Context()); err != nil || len(users) != 2 {
		t.Errorf("the refused changed something: %v, %v", users, err)
	}
	keys, err := r.store.Certificates(t.Context(), "")
	if known, _ := r.store.KnownDevices(t.Context()); err != nil || len(keys) != 0 || len(known.Learnings) != 1 {
		t.Errorf("the refused changed something: %v, %+v", keys, known)
	}
}

// TestHostileDevices: what devices, CAs and certificates say is text.
func TestHostileDevices(t *testing.T) {
	r := learner(t)
	p := operate.Proposal{}
	poison(reflect.ValueOf(&p).Elem())
	p.Messages = 2
	c := operate.Certificate{}
	poison(reflect.ValueOf(&c).Elem())
	c.Failures = 1
	card1 := clientsetup.Card{}
	poison(reflect.ValueOf(&card1).Elem())
	m := operate.Mechanism{}
	poison(reflect.ValueOf(&m).Elem())
	v := r.visit("de")
	login := &loginView{loginWays: loginWays{Ways: []loginWay{loginWayOf(v, m)}, External: true,
		Keys: []operate.Pinned{{Key: hostile, Subject: hostile}}}, MayEdit: true}
	for name, body := range map[string]any{
		"learning": &learningView{Rows: []proposalRow{{Proposal: p}}, Active: []devices.Learning{{By: hostile}},
			MayLearn: true, MayAccept: true, MayForget: true, Form: learningForm{Problem: hostile},
			Places: []operate.LearningPlace{{Listener: "a"}, {Listener: "b"}}},
		"learnaccept": &acceptView{Proposal: p, Heading: plain(100, hostile),
			Form: loginForm{Login: plain(99, hostile)}},
		"learnforget": &forgetView{p, true},
		"certificates": &certificatesView{Rows: []certificateRow{certificateRowOf(v, c)}, Problem: plain(99, hostile),
			Records: []acmeRecord{{Name: hostile, Type: hostile, Value: hostile}}},
		"client": viewClient(v, &card1), "login": login,
		"card": &card{Accepted: &operate.Accepted{Address: hostile, Released: 1}},
	} {
		harmless(t, name, r.drawn(name, body))
	}
}

// TestImportSaysWhatIsLater: an import says that SCRAM needs a login by PLAIN first, in German too; a check does not.
func TestImportSaysWhatIsLater(t *testing.T) {
	r := learner(t)
	form := url.Values{"table": {"login\tsenders\nben\tben@example.com\n"}, "check": {"1"}}
	body := r.ask(person(operate.Operator), "POST", "/logins/act/import", form).Body.String()
	if strings.Contains(body, "SCRAM") {
		t.Errorf("a check says %s", body)
	}
	form.Del("check")
	body = r.ask(person(operate.Operator), "POST", "/logins/act/import", form, in("de")).Body.String()
	if !strings.Contains(body, "SCRAM wird angeboten") || strings.Contains(body, "CRAM-MD5") {
		t.Errorf("an import says %s", body)
	}
}
