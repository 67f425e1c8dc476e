package smtp

import (
	"strconv"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
	"postern/mail"
)

// Empty lines before, between and behind replies are nothing.
func TestEmptyLines(t *testing.T) {
	for way, ext := range ways {
		for name, secure := range map[string]bool{"TLS": true, "clear": false} {
			fc := provider()
			fc.Extensions = ext
			if !secure {
				fc.TLS = nil
			}
			fc.Hook = func(_ *fakesmtp.Session, _, _ string) fakesmtp.Action {
				return fakesmtp.Action{Reply: "\n", Also: true}
			}
			fake, u := start(t, fc, nil)
			for range 3 {
				wantClasses(t, send(t, u, message(t, "bob@example.net", "carol@example.net")), "delivered delivered")
			}
			if c := fake.Counts(); len(fake.Messages()) != 3 || c.Connections != 1 {
				t.Errorf("%s, %s: %d messages, %d connections", way, name, len(fake.Messages()), c.Connections)
			}
		}
	}
}

// The greeting of a server as it was reported, with an empty line behind it, and one that never ends.
func TestOddGreetings(t *testing.T) {
	for greeting, want := range map[string]string{
		"220 mx.example.com ESMTP\n":                    "delivered",
		"\n220 mx.example.com ESMTP":                    "delivered",
		"220":                                           "delivered",
		"220-two\n220 lines":                            "delivered",
		"220-two\n\n220 lines\n":                        "delivered",
		"220mx.example.com":                             "delivered",
		"554-no\n220 but yes":                           "delivered",
		"220-yes\n554 but no":                           "account-fault",
		"220 hi" + strings.Repeat("\n", 5000) + "220 x": "back-pressure",
		"SSH-2.0-OpenSSH_9.2p1":                         "back-pressure",
		"220 one\n220 two":                              "back-pressure", // in answer to nothing
	} {
		fc := provider()
		fc.Hook = hookOn(fakesmtp.Connect, 0, fakesmtp.Action{Reply: greeting})
		_, u := start(t, fc, nil)
		if got := classes(send(t, u, message(t))); got != want {
			t.Errorf("%.40q: got %s, want %s", greeting, got, want)
		}
	}
}

// The last line of a reply decides at every stage.
func TestMixedCodes(t *testing.T) {
	for way, ext := range ways {
		for _, c := range []struct{ verb, reply, want string }{
			{"MAIL", "250-no\n550 5.1.8 yes", "message-fault message-fault"},
			{"MAIL", "250-no\n451 4.3.0 later", "deferral deferral"},
			{"RCPT", "250-ok\n550 5.1.1 no such user", "recipient-fault recipient-fault"},
			{fakesmtp.Chunk, "250-ok\n554 5.6.0 no", "message-fault message-fault"},
			{fakesmtp.Content, "250-ok\n554 5.6.0 no", "message-fault message-fault"},
		} {
			chunks := way == "one flight"
			if c.verb == fakesmtp.Chunk && !chunks || c.verb == fakesmtp.Content && chunks {
				continue
			}
			fc := provider()
			fc.Extensions = ext
			fc.Hook = hookOn(c.verb, 0, fakesmtp.Action{Reply: c.reply})
			fake, u := start(t, fc, nil)
			wantClasses(t, send(t, u, message(t, "bob@example.net", "carol@example.net")), c.want)
			if len(fake.Messages()) > 0 {
				t.Errorf("%s %s: a message was taken", way, c.verb)
			}
		}
		fc := provider()
		fc.Extensions = ext
		fc.Hook = func(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == fakesmtp.Content || verb == fakesmtp.Chunk {
				s.Take()
				return fakesmtp.Action{Reply: "550-5.0.0 not\n250 2.0.0 taken"}
			}
			return fakesmtp.Action{}
		}
		_, u := start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
	}
}

// A server that does not know EHLO is greeted with HELO, whatever its refusal, where neither TLS nor a login is needed.
func TestHELOBehindAnyRefusal(t *testing.T) {
	for _, refusal := range []string{"500 what?", "501 5.5.4 bad argument", "502 5.5.1 not implemented", "504 no",
		"550 5.7.1 no EHLO here", "554 no", "555 5.5.4 no"} {
		for _, c := range []struct {
			name  string
			login bool
			tls   bool
			want  string
		}{
			{"neither", false, false, "delivered"},
			{"login", true, false, "account-fault"},
			{"TLS", false, true, "account-fault"},
		} {
			fc := provider()
			if !c.tls {
				fc.TLS = nil
			}
			fc.Hook = hookOn("EHLO", 0, fakesmtp.Action{Reply: refusal})
			fake, u := start(t, fc, func(cfg *Config) {
				if !c.login {
					cfg.Username, cfg.Password = "", ""
				}
			})
			r := send(t, u, message(t))
			helo := strings.Contains(strings.Join(fake.Log(), "\n"), "HELO relay.example.com")
			if classes(r) != c.want || helo != (c.name == "neither") {
				t.Errorf("%s, %s: got %s: %s, %v", refusal, c.name, classes(r), r[0].Reply, fake.Log())
			}
			if m := fake.Messages(); len(m) == 1 && (m[0].From != "FROM:<alice@example.com>" ||
				m[0].To[0] != "TO:<bob@example.net>") {
				t.Errorf("parameters that nobody offered: %+v", m[0])
			}
		}
	}
	// Implicit TLS comes before EHLO, so that HELO does.
	fc := provider()
	fc.Implicit = true
	fc.Hook = hookOn("EHLO", 0, fakesmtp.Action{Reply: "550 no"})
	_, u := start(t, fc, func(cfg *Config) { cfg.Username, cfg.Password = "", "" })
	wantClasses(t, send(t, u, message(t)), "delivered")
}

// Where HELO is refused too, the refusal that says more is told.
func TestHELORefused(t *testing.T) {
	for _, c := range []struct{ ehlo, helo, want string }{
		{"550 5.7.1 your address is blocked", "503 5.5.1 bad sequence", "550 5.7.1 your address is blocked"},
		{"502 5.5.1 not implemented", "550 5.7.1 name refused", "550 5.7.1 name refused"},
		{"550 5.7.1 no", "450 4.7.1 later", "450 4.7.1 later"},
		{"450 4.7.1 later", "250 never asked", "450 4.7.1 later"},
		{"421 4.7.0 go", "250 never asked", "421 4.7.0 go"},
	} {
		fc := provider()
		fc.TLS = nil
		fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			return fakesmtp.Action{Reply: map[string]string{"EHLO": c.ehlo, "HELO": c.helo}[verb]}
		}
		_, u := start(t, fc, func(cfg *Config) { cfg.Username, cfg.Password = "", "" })
		if r := send(t, u, message(t))[0]; r.Reply.String() != c.want ||
			r.Class != mail.AccountFault && c.want[0] == '5' {
			t.Errorf("%+v: got %s: %s", c, r.Class, r.Reply)
		}
	}
}

// Keywords are read in every form that is in use.
func TestOddOffers(t *testing.T) {
	for offer, want := range map[string]string{
		"size 1000\npipelining\n8BitMime":            "PIPELINING 8BITMIME 1000",
		"SIZE=1000\nPIPELINING \n8BITMIME\t":         "PIPELINING 8BITMIME 1000",
		"SIZE\nPIPELINING x y\nX-ANONYMOUSTLS":       "PIPELINING 0",
		"SIZE 99999999999999999999999\nPIPELINING\n": "PIPELINING 0",
		"SIZE -1\n\nPIPELINING":                      "PIPELINING 0",
	} {
		x := parseEHLO(mail.Reply{Code: 250, Text: "mx\n" + offer})
		got := ""
		if x.pipelining {
			got += "PIPELINING "
		}
		if x.eightBit {
			got += "8BITMIME "
		}
		if got += strconv.FormatInt(x.size, 10); got != want {
			t.Errorf("%q: got %s, want %s", offer, got, want)
		}
	}
}
