package relay

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/store"
)

const learningListener = `[[listener]]
	name = "devices"
	address = "127.0.0.1:0"
	tls = "none"
	networks = ["127.0.0.0/8"]
	profile = "appliance"
	handoff = "1m"`

// learner is somebody who sets up devices.
type learner struct {
	*rig
	ops *operate.Operations
	by  operate.Actor
}

func newLearner(t *testing.T) *learner { return newLearnerAt(t, learningListener) }

func newLearnerAt(t *testing.T, listener string) *learner {
	r := newRig(t, newProvider(t), listener)
	c, err := r.load()
	if err != nil {
		t.Fatal(err)
	}
	return &learner{r, operate.New(operate.Options{Config: func() *config.Config { return c }, Store: r.store()}),
		operate.Actor{Name: "root", Channel: operate.CommandLine}}
}

func (l *learner) learn(network string, d time.Duration) {
	l.t.Helper()
	_, err := l.ops.Devices.Learn(l.t.Context(), l.by, operate.LearnRequest{Network: network, For: d})
	if err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the learning in force", func() bool {
		return l.server.devices.Learns("devices", netip.MustParseAddr("127.0.0.1"), time.Now())
	})
}

func (d *rawDevice) hello() *rawDevice {
	d.say("HELO RNP0026\r\n", "250")
	return d
}

// mail is what a device says from MAIL on; it returns the last reply.
func (d *rawDevice) mail(sender, header string) string {
	d.t.Helper()
	last := ""
	for _, text := range []string{"MAIL FROM:<" + sender + ">\r\n", "RCPT TO:<bob@example.net>\r\n", "DATA\r\n",
		header + "\r\n\r\nscan\r\n.\r\n"} {
		if last = d.say(text, ""); last[0] >= '4' {
			return last
		}
	}
	return last
}

// TestLearning: while a network is learned its devices send without login, all that they send is held, and who they
// are is proposed; an accepted one needs no login any more, for its own senders.
func TestLearning(t *testing.T) {
	l := newLearner(t)
	reply := l.device().hello().mail("scans@example.com", "From: scans@example.com")
	if !strings.HasPrefix(reply, "530 ") {
		t.Fatalf("before: %s", reply)
	}
	l.learn("127.0.0.0/24", time.Hour)
	d := l.device()
	d.say("EHLO RNP0026\r\n", "250")
	if reply := d.mail("scans@example.com", "From: Scanner <scans@example.com>"); !strings.HasPrefix(reply, "250 ") {
		t.Fatalf("while learning: %s", reply)
	}
	if reply := d.mail("scans@example.com", "From: ceo@partner.example"); !strings.HasPrefix(reply, "550 5.7.1 ") {
		t.Errorf("a foreign author: %s", reply)
	}
	if reply := d.mail("ceo@partner.example", "From: scans@example.com"); !strings.HasPrefix(reply, "550 5.7.1 ") {
		t.Errorf("a foreign reverse-path: %s", reply)
	}
	l.proposed()
	if l.provider.count() != 0 {
		t.Fatal("mail of a device that nobody accepted left")
	}
	done, err := l.ops.Devices.Accept(t.Context(), l.by, operate.Acceptance{Address: "127.0.0.1", Release: true})
	if err != nil || done.Login != "rnp0026" || !slices.Equal(done.Senders, []string{"scans@example.com"}) ||
		done.Password == "" || done.Released != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := l.ops.Devices.StopLearning(t.Context(), l.by, ""); err != nil {
		t.Fatal(err)
	}
	l.provider.wait(1) // what was released
	l.eventually("the device in force", func() bool {
		at := netip.MustParseAddr("127.0.0.1")
		return l.server.devices.Login("devices", at) == "rnp0026" && // and the end of learning, told apart
			!l.server.devices.Learns("devices", at, time.Now())
	})
	if reply := d.mail("scans@example.com", "From: scans@example.com"); !strings.HasPrefix(reply, "421 ") {
		t.Errorf("a session that was learned goes on: %s", reply)
	}
	l.accepted()
	l.forgotten()
}

// proposed checks what is proposed.
func (l *learner) proposed() {
	l.t.Helper()
	all, err := l.ops.Devices.Proposals(l.t.Context(), l.by, time.Now())
	if err != nil || len(all) != 1 {
		l.t.Fatalf("%+v, %v", all, err)
	}
	if p := all[0]; p.Address != "127.0.0.1" || p.Hello != "RNP0026" || p.Messages != 1 || p.Listener != "devices" ||
		!slices.Equal(p.Senders, []string{"scans@example.com"}) || !strings.Contains(p.Fault, "ceo@partner.example") {
		l.t.Errorf("%+v", p)
	}
	active, err := l.ops.Devices.Learnings(l.t.Context(), l.by, time.Now())
	if err != nil || len(active) != 1 || active[0].By != "root" {
		l.t.Errorf("%+v, %v", active, err)
	}
}

// accepted checks a device that has an account: it sends as itself, and what is seen of it is listed.
func (l *learner) accepted() {
	l.t.Helper()
	d := l.device()
	d.say("EHLO RNP0026\r\n", "250")
	before := l.provider.count()
	if reply := d.mail("scans@example.com", "From: scans@example.com"); !strings.HasPrefix(reply, "250 ") {
		l.t.Errorf("accepted: %s", reply)
	}
	l.provider.wait(before + 1)
	if reply := d.mail("anna@example.com", "From: anna@example.com"); !strings.HasPrefix(reply, "550 5.7.1 ") {
		l.t.Errorf("as somebody else: %s", reply)
	}
	users, _, err := l.ops.Accounts.List(l.t.Context(), l.by, operate.DevicesOnly)
	if err != nil || len(users) != 1 {
		l.t.Fatalf("%v, %v", users, err)
	}
	seen, err := l.ops.Devices.Sightings(l.t.Context(), l.by, users)
	if s := seen["rnp0026"]; err != nil || s.Seen.IsZero() || s.Hello != "RNP0026" || s.TLS != "none" ||
		!strings.Contains(s.Fault, "may not send as <anna@example.com>") {
		l.t.Errorf("%+v, %v", s, err)
	}
	if all, err := l.ops.Devices.Proposals(l.t.Context(), l.by, time.Now()); err != nil || len(all) != 0 {
		l.t.Errorf("still proposed: %+v, %v", all, err)
	}
	entries, err := l.ops.Audit.List(l.t.Context(), l.by, store.AuditQuery{Limit: 50})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, want := range []string{"device learn", "device accept"} {
		if !slices.ContainsFunc(entries, func(e store.AuditEntry) bool {
			return e.Operation == want && e.Actor == "root"
		}) {
			l.t.Errorf("%s is not in the audit", want)
		}
	}
}

// forgotten checks that with the account goes its place.
func (l *learner) forgotten() {
	l.t.Helper()
	if err := l.ops.Accounts.Remove(l.t.Context(), l.by, operate.DevicesOnly, "rnp0026"); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the device forgotten", func() bool {
		return l.server.devices.Login("devices", netip.MustParseAddr("127.0.0.1")) == ""
	})
	reply := l.device().hello().mail("scans@example.com", "From: scans@example.com")
	if !strings.HasPrefix(reply, "530 ") {
		l.t.Errorf("removed: %s", reply)
	}
}

// TestReleaseNamesNobodyElse: what is released of an accepted device names nobody whom it may not be, in any field.
func TestReleaseNamesNobodyElse(t *testing.T) {
	l := newLearner(t)
	l.learn("127.0.0.0/24", time.Hour)
	d := l.device().hello()
	for _, header := range []string{
		"From: scans@example.com",
		"From: scans@example.com, ceo@example.com\r\nSender: scans@example.com",
		"From: scans@example.com\r\nSender: ceo@example.com",
		"Resent-From: ceo@example.com\r\nFrom: scans@example.com",
		"From: \"ceo@example.com\" <scans@example.com>",
	} {
		if reply := d.mail("scans@example.com", header); !strings.HasPrefix(reply, "250 ") {
			t.Fatalf("%q: %s", header, reply)
		}
	}
	done, err := l.ops.Devices.Accept(t.Context(), l.by, operate.Acceptance{Address: "127.0.0.1", Release: true,
		Senders: []string{"scans@example.com"}})
	if err != nil || done.Released != 1 {
		t.Errorf("%d messages released, %v", done.Released, err)
	}
}

// TestLearningEndsAlsoWhileNothingRuns: it is a time, not a timer.
func TestLearningEndsAlsoWhileNothingRuns(t *testing.T) {
	l := newLearner(t)
	l.close()
	now := time.Now()
	s := l.store()
	if err := s.Learn(t.Context(), devices.Learning{Listener: "devices", Network: netip.MustParsePrefix("127.0.0.0/24"),
		Began: now.Add(-2 * time.Hour), Until: now.Add(-time.Second), By: "root"}); err != nil {
		t.Fatal(err)
	}
	l.start()
	reply := l.device().hello().mail("scans@example.com", "From: scans@example.com")
	if !strings.HasPrefix(reply, "530 ") {
		t.Errorf("over: %s", reply)
	}
	l.learn("127.0.0.0/24", time.Hour)
	l.close()
	l.start() // one under way goes on
	reply = l.device().hello().mail("anna@example.com", "From: anna@example.com")
	if !strings.HasPrefix(reply, "250 ") {
		t.Errorf("after a restart: %s", reply)
	}
	if l.provider.count() != 0 {
		t.Error("it left")
	}
}

// TestLoginWhileLearning: who has an account is that account, and who has not is proposed with what was tried.
func TestLoginWhileLearning(t *testing.T) {
	l := newLearner(t)
	l.learn("127.0.0.0/24", time.Hour)
	plain := func(login, password string) string {
		return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+password)) + "\r\n"
	}
	d := l.device()
	d.say("EHLO x\r\n", "250")
	d.say(plain("old-scanner", "1234"), "535")
	d.say(plain(rigLogin, rigPassword), "235")
	if reply := d.mail(rigLogin, "From: "+rigLogin); !strings.HasPrefix(reply, "250 ") {
		t.Error(reply)
	}
	l.provider.wait(1)
	all, err := l.ops.Devices.Proposals(t.Context(), l.by, time.Now())
	if err != nil || len(all) != 1 || all[0].Login != "old-scanner" || all[0].Messages != 0 || all[0].Fault == "" {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = l.ops.Devices.Accept(t.Context(), l.by, operate.Acceptance{Address: "127.0.0.1"})
	if err == nil || !strings.Contains(err.Error(), "--sender") {
		t.Errorf("accepted without a sender: %v", err)
	}
}

// TestLearningIsBounded: what is held of devices that nobody accepted has an end.
func TestLearningIsBounded(t *testing.T) {
	l := newLearner(t)
	l.learn("127.0.0.0/24", time.Hour)
	d := l.device()
	d.say("EHLO x\r\n", "250")
	for n := range devices.MostHeld + 1 {
		reply := d.mail("anna@example.com", "From: anna@example.com")
		if want := n < devices.MostHeld; strings.HasPrefix(reply, "250 ") != want ||
			!want && !strings.HasPrefix(reply, "452 4.7.1 ") {
			t.Fatalf("message %d: %s", n+1, reply)
		}
	}
}

// TestWhatCannotBeLearned: nothing that opens more than somebody meant.
func TestWhatCannotBeLearned(t *testing.T) {
	l := newLearner(t)
	for name, r := range map[string]operate.LearnRequest{
		"/20 or narrower":       {Network: "127.0.0.0/8", For: time.Hour},
		"not within":            {Network: "192.0.2.0/24", For: time.Hour},
		"1m to 2h":              {Network: "127.0.0.0/24", For: 2*time.Hour + 1},
		"is no listener where":  {Listener: "submission", Network: "127.0.0.0/24", For: time.Hour},
		"0.0.0.0/0 is too wide": {Network: "0.0.0.0/0", For: time.Hour},
	} {
		if _, err := l.ops.Devices.Learn(t.Context(), l.by, r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.ops.Devices.Learn(t.Context(), operate.Actor{Name: "bob", Role: operate.Operator},
		operate.LearnRequest{Network: "127.0.0.0/24", For: time.Hour}); err == nil {
		t.Error("an operator may")
	}
	l.addUser(auth.User{Login: "rnp0026"})
	_, err := l.ops.Devices.Accept(t.Context(), l.by, operate.Acceptance{Address: "127.0.0.7", Name: "rnp0026",
		Senders: []string{"scans@example.com"}})
	if kind, _ := operate.KindOf(err); kind != operate.Conflict {
		t.Errorf("a name that is taken: %v", err)
	}
}

// TestFailedTLSIsProposed: a device that comes no further than the handshake is proposed with what it lacks.
func TestFailedTLSIsProposed(t *testing.T) {
	l := newLearnerAt(t, strings.Replace(learningListener, `tls = "none"`, `tls = "auto"`, 1))
	l.learn("127.0.0.0/24", time.Hour)
	if said := l.oldClient("devices", "-tls1 -cipher AES128-SHA:@SECLEVEL=0"); !strings.Contains(said, "(NONE)") {
		t.Fatal(said)
	}
	var all []operate.Proposal
	var err error
	l.eventually("the proposal", func() bool {
		all, err = l.ops.Devices.Proposals(t.Context(), l.by, time.Now())
		return err != nil || len(all) > 0
	})
	const want = "the client offers only TLS 1.0 with TLS_RSA_WITH_AES_128_CBC_SHA"
	if err != nil || !strings.Contains(all[0].Fault, want) {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestRefusedDevicesAreSeen: a device that is learned and does not begin TLS is proposed, with what it heard.
func TestRefusedDevicesAreSeen(t *testing.T) {
	l := newLearnerAt(t, strings.Replace(learningListener, `tls = "none"`, `tls = "auto"`, 1))
	l.learn("127.0.0.0/24", time.Hour)
	d := l.device().hello()
	d.say("MAIL FROM:<scans@example.com>\r\n", "530")
	d.conn.Close()
	l.eventually("the device", func() bool {
		found, err := l.ops.Devices.Proposals(t.Context(), l.by, time.Now())
		return err == nil && len(found) == 1 && found[0].Address == "127.0.0.1" &&
			strings.Contains(found[0].Fault, "not encrypted") && found[0].Hello == "RNP0026" && found[0].Messages == 0
	})
}
