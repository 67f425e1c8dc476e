package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// BDAT that is offered and not taken becomes DATA, at once and for the messages to come.
func TestChunkingThatIsNone(t *testing.T) {
	data := large(200 << 10)
	huge := large(1500 << 10)
	for size, content := range map[string]mail.Content{
		"small": mail.BytesContent(letter), "large": mail.BytesContent(data),
		"stream": &stream{data: data, size: int64(len(data))},
		"huge":   mail.BytesContent(huge), "huge stream": &stream{data: huge, size: int64(len(huge))},
	} {
		r, _ := content.Open()
		want := new(bytes.Buffer)
		want.ReadFrom(r)
		for reply, learned := range map[string]bool{
			"500 5.5.1 command unrecognized": true, "502 5.5.1 not implemented": true, "503 5.5.1 bad sequence": true,
			// "": taken for commands
			"504 5.5.4 no": true, "555 5.5.4 no": true, "550 5.5.1 BDAT is not for you": true, "": true,
			"554 5.7.1 spam": false, "451 4.3.0 later": false,
		} {
			fc := provider()
			fc.NoBDAT = reply == ""
			if reply != "" {
				fc.Hook = hookOn("BDAT", 1, fakesmtp.Action{Reply: reply, Flush: true})
			}
			fake, u := start(t, fc, nil)
			tr := message(t, "bob@example.net", "carol@example.net")
			tr.Content = content
			name := fmt.Sprintf("%s, %q", size, reply)
			res := send(t, u, tr)
			if !learned {
				if res[0].Class == mail.Delivered || res[0].Note != "" {
					t.Errorf("%s: got %s, note %q", name, res[0].Class, res[0].Note)
				}
				continue
			}
			for _, r := range res {
				if r.Class != mail.Delivered || r.Uncertain ||
					!strings.Contains(r.Note, "offers CHUNKING and does not take BDAT") {
					t.Errorf("%s: got %s uncertain=%v: %s; %q", name, r.Class, r.Uncertain, r.Reply, r.Note)
				}
			}
			m := fake.Messages()
			if len(m) != 1 || !bytes.Equal(m[0].Data, want.Bytes()) || len(m[0].To) != 2 {
				t.Errorf("%s: %d messages", name, len(m))
			}
			if n := fake.Counts().Connections; reply != "" && size == "small" && n != 1 || n > 2 {
				t.Errorf("%s: %d connections", name, n)
			}
			before := strings.Count(strings.Join(fake.Log(), "\n"), "BDAT ")
			fake.DropAll() // another connection knows it too
			r := send(t, u, tr)
			if after := strings.Count(strings.Join(fake.Log(), "\n"), "BDAT "); classes(r) != "delivered delivered" ||
				r[0].Note != "" || after != before {
				t.Errorf("%s: then %s, note %q, %d BDAT", name, classes(r), r[0].Note, after-before)
			}
		}
	}
}

// A recipient that was refused before the chunk stays refused.
func TestChunkingThatIsNoneForSome(t *testing.T) {
	fc := provider()
	fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
		switch {
		case verb == "BDAT":
			return fakesmtp.Action{Reply: "502 5.5.1 no"}
		case strings.Contains(line, "nobody"):
			return fakesmtp.Action{Reply: "550 5.1.1 no such user"}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t, "nobody@example.net", "bob@example.net")), "recipient-fault delivered")
	if m := fake.Messages(); len(m) != 1 || len(m[0].To) != 1 ||
		strings.Count(strings.Join(fake.Log(), "\n"), "nobody") != 1 {
		t.Errorf("%d messages, %v", len(m), fake.Log())
	}
	wantClasses(t, send(t, u, message(t, "nobody@example.net")), "recipient-fault")
}

// Every message is refused for ever by a server that takes neither BDAT nor DATA; one attempt asks for each once.
func TestNeitherChunksNorData(t *testing.T) {
	fc := provider()
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "BDAT" || verb == "DATA" {
			return fakesmtp.Action{Reply: "502 5.5.1 no"}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t)), "deferral")
	if log := strings.Join(fake.Log(), "\n"); strings.Count(log, "BDAT ") != 1 || strings.Count(log, "DATA") != 1 {
		t.Errorf("%s", log)
	}
}

// An offer that changes with each connection, so that nothing can be remembered, does not make an attempt endless.
func TestAgainIsBounded(t *testing.T) {
	fc := provider()
	fc.NoBDAT = true
	n := 0
	fc.Hook = func(s *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "EHLO" && s.TLS {
			n++
			return fakesmtp.Action{Reply: fmt.Sprintf("250-x\n250-X-NUMBER %d\n250-PIPELINING\n250-CHUNKING\n250 "+
				"AUTH PLAIN", n)}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t)), "deferral")
	if n := fake.Counts().Connections; n > maxAgain+1 {
		t.Errorf("%d connections", n)
	}
}

// Parameters that are offered and refused are left out where the mail does not need them.
func TestParameterThatIsNone(t *testing.T) {
	for way, ext := range ways {
		for _, c := range []struct {
			name, verb, bad, reply string
			change                 func(*upstream.Transaction)
			want                   string // of the second message; "": refused
			note                   string
		}{
			{"SIZE", "MAIL", "SIZE=", "555 5.5.4 Unsupported option: SIZE=72", nil,
				"FROM:<alice@example.com> TO:<bob@example.net>", "offers SIZE"},
			{"SIZE, short", "MAIL", "SIZE=", "501 syntax error", nil, "FROM:<alice@example.com> TO:<bob@example.net>",
				"offers SIZE"},
			{"SIZE by another code", "MAIL", "SIZE=", "550 5.5.4 unknown parameter", nil,
				"FROM:<alice@example.com> TO:<bob@example.net>", "offers SIZE"},
			{"RET", "MAIL", "RET=", "555 5.5.4 RET parameter unrecognized", dsnOf(0),
				"FROM:<alice@example.com> SIZE=72 TO:<bob@example.net>", "offers DSN"},
			{"ENVID", "MAIL", "ENVID=", "504 5.5.4 not implemented: ENVID", dsnOf(0),
				"FROM:<alice@example.com> SIZE=72 TO:<bob@example.net>", "offers DSN"},
			{"any", "MAIL", "ENVID=", "501 5.5.4 Invalid arguments", dsnOf(0),
				"FROM:<alice@example.com> TO:<bob@example.net>", "offers SIZE"},
			{"NOTIFY", "RCPT", "NOTIFY=", "555 5.5.4 Unsupported option: NOTIFY=NEVER", dsnOf(mail.NotifyNever),
				"FROM:<alice@example.com> SIZE=72 TO:<bob@example.net>", "offers DSN"},
			{"NOTIFY, short", "RCPT", "NOTIFY=", "501 what?", dsnOf(mail.NotifySuccess),
				"FROM:<alice@example.com> SIZE=72 TO:<bob@example.net>", "offers DSN"},
			// What the mail needs cannot be left out.
			{"8BITMIME", "MAIL", "8BITMIME", "555 5.5.4 8BITMIME parameter unrecognized", contentOf(eightBitLetter), "",
				""},
			{"SMTPUTF8", "MAIL", "SMTPUTF8", "555 5.6.7 SMTPUTF8 not supported", contentOf(utf8Letter), "", ""},
			// Refusals that are about something else are not asked for twice more than once.
			{"address", "MAIL", "alice", "501 5.1.7 bad sender address syntax", nil, "", ""},
			{"everything", "MAIL", "alice", "501 5.5.4 no", nil, "", ""},
			{"recipient", "RCPT", "bob", "501 5.1.3 bad address", dsnOf(mail.NotifyNever), "", ""},
			{"every recipient", "RCPT", "bob", "501 5.5.4 no", dsnOf(mail.NotifyNever), "", ""},
		} {
			fc := provider()
			fc.Extensions = ext
			refusals := 0
			fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
				if verb == c.verb && strings.Contains(line, c.bad) {
					refusals++
					return fakesmtp.Action{Reply: c.reply}
				}
				return fakesmtp.Action{}
			}
			fake, u := start(t, fc, nil)
			tr := message(t)
			if c.change != nil {
				c.change(&tr)
			}
			r := send(t, u, tr)[0]
			if c.want == "" {
				if !r.Class.Permanent() || !strings.HasPrefix(c.reply, r.Reply.String()[:3]) ||
					r.Note != "" && r.Note != noteNoRule || refusals > 2 {
					t.Errorf("%s, %s: got %s: %s; %q, refused %d times", way, c.name, r.Class, r.Reply, r.Note,
						refusals)
				}
				if s := u.habits.known; len(s) > 0 {
					t.Errorf("%s, %s: learned %v", way, c.name, s)
				}
				continue
			}
			if r.Class != mail.Delivered || !strings.Contains(r.Note, c.note) || refusals != 1 ||
				strings.Contains(c.note, "DSN") && r.RelayedDSN {
				t.Errorf("%s, %s: got %s: %s; %q, refused %d times, DSN relayed: %v", way, c.name, r.Class, r.Reply,
					r.Note, refusals, r.RelayedDSN)
			}
			fake.DropAll()
			r = send(t, u, tr)[0]
			m := fake.Messages()
			if r.Class != mail.Delivered || r.Note != "" || refusals != 1 || len(m) != 2 ||
				m[1].From+" "+m[1].To[0] != c.want {
				t.Errorf("%s, %s: then %s, %q, refused %d times: %+v", way, c.name, r.Class, r.Note, refusals, m)
			}
		}
	}
}

func dsnOf(n mail.Notify) func(*upstream.Transaction) {
	return func(tr *upstream.Transaction) {
		if tr.Recipients[0].Notify = n; n == 0 {
			tr.Ret, tr.EnvID = mail.RetHeaders, "x1"
		}
	}
}

func contentOf(c mail.Content) func(*upstream.Transaction) {
	return func(tr *upstream.Transaction) { tr.Content, tr.EightBit = c, true }
}

// One recipient's parameter is refused: the others get the message once, and it without.
func TestParameterOfOneRecipient(t *testing.T) {
	for way, ext := range ways {
		fc := provider()
		fc.Extensions = ext
		fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == "RCPT" && strings.Contains(line, "NOTIFY=") {
				return fakesmtp.Action{Reply: "555 5.5.4 Unsupported option: NOTIFY"}
			}
			return fakesmtp.Action{}
		}
		fake, u := start(t, fc, nil)
		tr := message(t, "bob@example.net", "carol@example.net", "dave@example.net")
		tr.Recipients[1].Notify = mail.NotifyNever
		r := send(t, u, tr)
		wantClasses(t, r, "delivered delivered delivered")
		m := fake.Messages()
		if len(m) != 2 || len(m[0].To) != 2 || len(m[1].To) != 1 ||
			!strings.HasPrefix(m[1].To[0], "TO:<carol@example.net>") || r[1].RelayedDSN {
			t.Errorf("%s: %+v, %v", way, m, r[1].RelayedDSN)
		}
	}
}

// Nor does a server that refuses the parameters of RCPT and hangs up, so that each connection offers them anew.
func TestLeavingOutIsBounded(t *testing.T) {
	const enough = 5 * maxAgain
	fc := provider()
	fc.Hook = func(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
		switch {
		case verb == "RCPT" && s.Number <= enough && strings.Contains(line, "NOTIFY="):
			return fakesmtp.Action{Reply: "501 5.5.4 unsupported parameter NOTIFY"}
		case verb == "DATA" || verb == "BDAT":
			return fakesmtp.Action{Reply: "503 5.5.1 no recipients", Drop: true}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, func(cfg *Config) { cfg.DenyExtensions = []string{"CHUNKING"} })
	tr := message(t)
	tr.Recipients[0].Notify = mail.NotifyFailure
	if res := send(t, u, tr); res[0].Class == mail.Delivered {
		t.Errorf("got %s: %s", res[0].Class, res[0].Reply)
	}
	if n := fake.Counts().Connections; n > maxAgain+1 {
		t.Errorf("%d connections", n)
	}
}
