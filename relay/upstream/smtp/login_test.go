package smtp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// auths are the AUTH commands that a fake got.
func auths(fake *fakesmtp.Server) string {
	var got []string
	for _, l := range fake.Log() {
		if name, ok := strings.CutPrefix(l, "AUTH "); ok {
			got = append(got, name)
		}
	}
	return strings.Join(got, " ")
}

// What judges neither the password nor the mail leads to the next mechanism that both know; a refusal of the login is
// final.
func TestOtherMechanism(t *testing.T) {
	for reply, other := range map[string]bool{
		"504 5.5.4 Unrecognized authentication type":                      true,
		"504 5.7.4 Unrecognized authentication type":                      true,
		"504 AUTH mechanism disabled":                                     true,
		"534 5.7.9 Authentication mechanism is too weak":                  true,
		"534 5.7.9 password mechanism too weak":                           true,
		"534 no":                                                          true,
		"538 5.7.11 Encryption required for this mechanism":               true,
		"500 5.5.1 command unrecognized":                                  true,
		"500 AUTH LOGIN what?":                                            true,
		"501 5.5.2 cannot decode that":                                    true,
		"502 5.5.1 not implemented":                                       true,
		"503 5.5.1 bad sequence of commands":                              true,
		"555 5.5.4 what?":                                                 true,
		"535 5.7.8 wrong":                                                 false,
		"535 5.7.8 mechanism not supported for you":                       false,
		"530 5.7.0 must issue STARTTLS":                                   false,
		"550 5.7.1 not from here":                                         false,
		"534 5.7.9 Application-specific password required. https://x":     false,
		"534-5.7.14 Please log in via your web browser\n534 5.7.14 again": false,
		"501 5.5.4 Authentication failed":                                 false,
		"500 5.7.0 invalid user":                                          false,
		"503 5.7.0 too many bad attempts":                                 false,
		"454 4.7.0 temporary authentication failure":                      false,
		"421 4.7.0 too many errors":                                       false,
	} {
		for _, order := range [][]string{{"PLAIN", "LOGIN"}, {"LOGIN", "PLAIN"}, {"CRAM-MD5", "PLAIN"},
			{"SCRAM-SHA-256", "LOGIN"}} {
			fc := provider()
			fc.Mechanisms = order
			fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
				if verb == "AUTH" && strings.Contains(line, " "+order[0]) {
					return fakesmtp.Action{Reply: reply}
				}
				return fakesmtp.Action{}
			}
			fake, u := start(t, fc, func(cfg *Config) { cfg.Mechanisms = order })
			r := send(t, u, message(t))[0]
			got := auths(fake)
			tried := strings.HasSuffix(got, " "+order[1])
			if tried != other || other != (r.Class == mail.Delivered) {
				t.Errorf("%q to %s: got %s: %s; %s", reply, order, r.Class, r.Reply, got)
			}
			if !other {
				if r.Reply.Code != atoi(reply[:3]) || got != order[0] || r.Note != "" && r.Note != noteNoRule {
					t.Errorf("%q to %s: got %s, note %q; %s", reply, order, r.Reply, r.Note, got)
				}
				continue
			}
			if want := "offers the login mechanism " + order[0] +
				" and does not take it"; !strings.Contains(r.Note, want) {
				t.Errorf("%q to %s: the trace says %q", reply, order, r.Note)
			}
			// It is remembered: another connection begins with the one that works.
			fake.DropAll()
			if r := send(t, u, message(t))[0]; r.Class != mail.Delivered || r.Note != "" ||
				auths(fake) != got+" "+order[1] {
				t.Errorf("%q to %s: then %s, note %q; %s", reply, order, r.Class, r.Note, auths(fake))
			}
		}
	}
}

func atoi(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

// Where nothing that both know is taken, the refusal is told, each is asked once for a connection, and the next one
// asks anew.
func TestNoMechanismIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS = nil
		fc.Mechanisms = []string{"PLAIN", "LOGIN"}
		fc.Hook = hookOn("AUTH", 0, fakesmtp.Action{Reply: "504 5.5.4 what?"})
		fake, u := startPiped(t, fc, nil)
		r := send(t, u, message(t))[0]
		if r.Class != mail.AccountFault || r.Reply.String() != "504 5.5.4 what?" || auths(fake) != "PLAIN LOGIN" ||
			state(u).Status != upstream.Paused {
			t.Errorf("got %s: %s; %s", r.Class, r.Reply, auths(fake))
		}
		time.Sleep(time.Hour)
		send(t, u, message(t))
		if auths(fake) != "PLAIN LOGIN PLAIN LOGIN" {
			t.Errorf("then %s", auths(fake))
		}
	})
}

// In clear a refusal does not lead from a mechanism that hides the password to one that shows it.
func TestNoDowngradeInClear(t *testing.T) {
	fc := provider()
	fc.TLS = nil
	fc.Mechanisms = []string{"SCRAM-SHA-256", "PLAIN", "LOGIN"}
	fc.Hook = hookOn("AUTH", 1, fakesmtp.Action{Reply: "504 5.5.4 what?"})
	fake, u := start(t, fc, nil)
	if r := send(t, u, message(t))[0]; r.Class != mail.AccountFault || auths(fake) != "SCRAM-SHA-256" {
		t.Errorf("got %s: %s; %s", r.Class, r.Reply, auths(fake))
	}
}

// A server that fails SCRAM's proof gets the password by no other way.
func TestNoDowngradeBehindScram(t *testing.T) {
	for _, reply := range []string{"235 2.7.0 welcome", "334 " + b64("r=other,s=c2FsdA==,i=4096"),
		"334 " + b64("e=other-error")} {
		fc := provider()
		fc.Mechanisms = []string{"SCRAM-SHA-256", "PLAIN"}
		fc.Hook = hookOn("AUTH", 1, fakesmtp.Action{Reply: reply})
		fake, u := start(t, fc, nil)
		if r := send(t, u, message(t))[0]; r.Class != mail.AccountFault || auths(fake) != "SCRAM-SHA-256" {
			t.Errorf("%s: got %s: %s; %s", reply, r.Class, r.Reply, auths(fake))
		}
	}
}

// RFC 4954 §6: a server that cannot check a mechanism yet wants PLAIN once.
func TestPasswordTransition(t *testing.T) {
	for _, c := range []struct {
		offered []string
		clear   bool
		want    string
	}{
		{[]string{"SCRAM-SHA-256", "LOGIN", "PLAIN"}, false, "SCRAM-SHA-256 PLAIN"},
		{[]string{"CRAM-MD5"}, false, "CRAM-MD5"},
		{[]string{"CRAM-MD5", "LOGIN"}, false, "LOGIN"}, // LOGIN comes first
		{[]string{"SCRAM-SHA-256", "PLAIN"}, true, "SCRAM-SHA-256"},
	} {
		fc := provider()
		if c.clear {
			fc.TLS = nil
		}
		fc.Mechanisms = c.offered
		fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == "AUTH" && !strings.Contains(line, "PLAIN") && !strings.Contains(line, "LOGIN") {
				return fakesmtp.Action{Reply: "432 4.7.12 A password transition is needed"}
			}
			return fakesmtp.Action{}
		}
		fake, u := start(t, fc, nil)
		r := send(t, u, message(t))[0]
		if auths(fake) != c.want || (r.Class == mail.Delivered) != (len(strings.Fields(c.want)) == 2 ||
			c.want == "LOGIN") {
			t.Errorf("%v: got %s: %s; %s", c.offered, r.Class, r.Reply, auths(fake))
		}
	}
}

// A server that does not read the initial response gets it again, in answer to its challenge.
func TestInitialResponseNotRead(t *testing.T) {
	for _, m := range []string{"PLAIN", "SCRAM-SHA-256"} {
		for name, hook := range map[string]func(*fakesmtp.Session, string) fakesmtp.Action{
			"ignored": func(s *fakesmtp.Session, line string) fakesmtp.Action {
				return fakesmtp.Action{}
			},
			"refused": func(_ *fakesmtp.Session, line string) fakesmtp.Action {
				if len(strings.Fields(line)) > 2 {
					return fakesmtp.Action{Reply: "501 5.5.4 no initial response"}
				}
				return fakesmtp.Action{}
			},
			"too long": func(_ *fakesmtp.Session, line string) fakesmtp.Action {
				if len(strings.Fields(line)) > 2 {
					return fakesmtp.Action{Reply: "500 5.5.6 line too long"}
				}
				return fakesmtp.Action{}
			},
		} {
			fc := provider()
			fc.Mechanisms, fc.NoInitial = []string{m}, name == "ignored"
			fc.Hook = func(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
				if verb == "AUTH" {
					return hook(s, line)
				}
				return fakesmtp.Action{}
			}
			fake, u := start(t, fc, nil)
			r := send(t, u, message(t))[0]
			if r.Class != mail.Delivered || !strings.Contains(r.Note, "does not take the first response of "+m) {
				t.Errorf("%s, %s: got %s: %s; %q", m, name, r.Class, r.Reply, r.Note)
			}
			before := len(strings.Fields(auths(fake)))
			fake.DropAll()
			if r := send(t, u, message(t))[0]; r.Class != mail.Delivered || r.Note != "" ||
				len(strings.Fields(auths(fake))) != before+1 {
				t.Errorf("%s, %s: then %s, %q; %s", m, name, r.Class, r.Note, auths(fake))
			}
		}
	}
}

// LOGIN asks in many words.
func TestLoginPrompts(t *testing.T) {
	for _, prompts := range [][2]string{
		{b64("Username:"), b64("Password:")}, {b64("User Name\x00"), b64("Password\x00")}, {"Username:", "Password:"},
		{"", ""}, {b64("Please enter your e-mail address"), b64("and the secret")}, {"dXNlcm5hbWU6 ", "cGFzc3dvcmQ6="},
		{"=", "="},
	} {
		fc := provider()
		fc.Mechanisms = []string{"LOGIN"}
		var got []string
		fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			step := len(got)
			switch {
			case verb == "AUTH":
				return fakesmtp.Action{Reply: strings.TrimSpace("334 " + prompts[0])}
			case step == 0 && verb != "EHLO" && verb != "STARTTLS" && verb != fakesmtp.Connect:
				got = append(got, line)
				return fakesmtp.Action{Reply: "334 " + prompts[1]}
			case step == 1:
				got = append(got, line)
				return fakesmtp.Action{Reply: "235 2.7.0 welcome"}
			}
			return fakesmtp.Action{}
		}
		_, u := start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		if !slices.Equal(got, []string{b64(user), b64(password)}) {
			t.Errorf("%q: answered %q", prompts, got)
		}
	}
}

// A challenge that CRAM-MD5 or PLAIN cannot have leads to another mechanism.
func TestImpossibleChallenge(t *testing.T) {
	fc := provider()
	fc.Mechanisms = []string{"CRAM-MD5", "LOGIN"}
	fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
		switch {
		case verb == "AUTH" && strings.Contains(line, "CRAM"):
			return fakesmtp.Action{Reply: "334 "}
		case line == "*":
			return fakesmtp.Action{Reply: "501 5.0.0 cancelled"}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, func(cfg *Config) { cfg.Mechanisms = []string{"CRAM-MD5", "LOGIN"} })
	if r := send(t, u, message(t))[0]; r.Class != mail.Delivered || auths(fake) != "CRAM-MD5 LOGIN" {
		t.Errorf("got %s: %s; %s", r.Class, r.Reply, auths(fake))
	}
}

// A server that closes behind its refusal is met on another connection with the next mechanism.
func TestOtherMechanismOnAnotherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS = nil
		fc.Mechanisms = []string{"PLAIN", "LOGIN"}
		fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == "AUTH" && strings.Contains(line, "PLAIN") {
				return fakesmtp.Action{Reply: "504 5.5.4 what?", Drop: true}
			}
			return fakesmtp.Action{}
		}
		fake, u := startPiped(t, fc, nil)
		r := send(t, u, message(t))[0]
		if r.Class != mail.BackPressure {
			t.Errorf("got %s: %s", r.Class, r.Reply)
		}
		time.Sleep(time.Hour)
		wantClasses(t, send(t, u, message(t)), "delivered")
		if auths(fake) != "PLAIN LOGIN" {
			t.Errorf("asked %s", auths(fake))
		}
	})
}
