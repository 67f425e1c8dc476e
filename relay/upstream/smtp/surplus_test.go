package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// ways are those in which a message may go.
var ways = map[string][]string{
	"one flight":   fakesmtp.Full,
	"DATA":         fakesmtp.Without("CHUNKING"),
	"step by step": fakesmtp.Without("PIPELINING"),
}

// The end of a message is answered as this says, after the message was taken.
func answering(reply string, drop bool) func(*fakesmtp.Session, string, string) fakesmtp.Action {
	first := true
	return func(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
		last := verb == fakesmtp.Content || verb == fakesmtp.Chunk && strings.HasSuffix(line, " LAST")
		if !last || !first {
			return fakesmtp.Action{}
		}
		first = false
		s.Take()
		return fakesmtp.Action{Reply: reply, Flush: true, Drop: drop}
	}
}

// A 250 to the message stays one, whatever lies behind it, and goes to nobody else.
func TestBehindTheReplyToTheMessage(t *testing.T) {
	contents := map[string]mail.Content{"small": mail.BytesContent(letter),
		"large": mail.BytesContent(large(200 << 10))}
	data := large(200 << 10)
	contents["stream"] = &stream{data: data, size: int64(len(data))}
	for way, ext := range ways {
		for size, content := range contents {
			for _, c := range []struct {
				reply string
				drop  bool
			}{
				{"250 2.0.0 stored as 7\n421 4.4.2 closing", false},
				{"250 2.0.0 stored as 7\n421-4.3.2 service\n421 4.3.2 shutting down", false},
				{"250 queued\n221 2.0.0 bye", true},
				{"250 2.0.0 stored for one\n250 2.0.0 stored for the other", false}, // as LMTP does it
				{"250 2.0.0 stored as 7\n250 2.0.0 stored as 7", false},
				{"250 message accepted\n550 5.2.2 and then it is full", false},
				{"250-2.6.0 message\n250 2.6.0 accepted\n500 5.5.1 command unrecognized", false},
				{"250 2.0.0 ok\n45", true}, // cut off
				{"250 2.0.0 ok\n\x15\x03\x03", true},
				{"250 2.0.0 ok\n\n", false}, // an empty line is nothing
				{"250 2.0.0 ok", true},
			} {
				name := fmt.Sprintf("%s, %s, %.60q", way, size, c.reply)
				fc := provider()
				fc.Extensions = ext
				fc.Hook = answering(c.reply, c.drop)
				fake, u := start(t, fc, nil)
				for n := range 3 {
					tr := message(t, "bob@example.net", "carol@example.net")
					tr.Content = content
					for _, r := range send(t, u, tr) {
						// The next may have been under way when the end of the connection came.
						if r.Class != mail.Delivered || r.Uncertain && n == 0 {
							t.Errorf("%s: message %d: got %s uncertain=%v: %s", name, n, r.Class, r.Uncertain, r.Reply)
						}
						if first := !strings.Contains(r.Reply.Text, "taken"); first != (n == 0) {
							t.Errorf("%s: message %d got the answer %q", name, n, r.Reply)
						}
					}
				}
				if m := fake.Messages(); len(m) != 3 || state(u).Status != upstream.Ready {
					t.Errorf("%s: %d messages, %s", name, len(m), state(u).Status)
				}
			}
		}
	}
}

// A reply too many before the end of the message makes the last one worthless. Where that cannot be seen at once, the
// message goes step by step afterwards.
func TestBeforeTheReplyToTheMessage(t *testing.T) {
	for way, ext := range ways {
		for _, c := range []struct{ verb, reply, last string }{
			{"MAIL", "250 2.1.0 ok", "250 2.0.0 taken"},
			{"MAIL", "250 2.1.0 ok", "552 5.3.4 too big"},
			{"MAIL", "250 ok", "552 too big"},
			{"RCPT", "250 2.1.5 ok", "250 2.0.0 taken"},
			{"RCPT", "250 ok", "451 not now"},
			{"DATA", "354 go", "250 2.0.0 taken"},
			{"DATA", "354 go\n250 2.0.0 taken", "451 not now"},
		} {
			fc := provider()
			fc.Extensions = ext
			once := true
			fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
				last := verb == fakesmtp.Content || verb == fakesmtp.Chunk && strings.HasSuffix(line, " LAST")
				switch {
				case verb == c.verb && once:
					once = false
					return fakesmtp.Action{Reply: c.reply, Also: true}
				case last && c.last[0] != '2':
					return fakesmtp.Action{Reply: c.last}
				}
				return fakesmtp.Action{}
			}
			_, u := start(t, fc, nil)
			r := send(t, u, message(t))[0]
			if once { // no DATA on this way
				continue
			}
			if r.Class == mail.Delivered || r.Class.Permanent() {
				t.Errorf("%s, %s twice: got %s: %s", way, c.verb, r.Class, r.Reply)
			}
			if s := state(u); s.Idle != 0 {
				t.Errorf("%s, %s twice: a connection out of step went back to the pool", way, c.verb)
			}
		}
	}
}

// What is said late, to nobody, must not answer the next message.
func TestLateSurplus(t *testing.T) {
	for _, late := range []string{"250 2.0.0 stored again", "550 5.0.0 or not", "421 4.4.2 idle for too long", "",
		"\n"} {
		fc := provider()
		sessions := make(chan *fakesmtp.Session, 9)
		fc.Hook = func(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == fakesmtp.Chunk || verb == fakesmtp.Content {
				sessions <- s
				return fakesmtp.Action{Also: true, Flush: true}
			}
			return fakesmtp.Action{}
		}
		fake, u := start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		if s := <-sessions; late != "" {
			s.Say(late)
		}
		for range 3 {
			wantClasses(t, send(t, u, message(t)), "delivered")
		}
		if n := len(fake.Messages()); n != 4 {
			t.Errorf("%q: %d messages", late, n)
		}
		want := 2
		switch {
		case strings.TrimSpace(late) == "":
			want = 1
		case late[:3] != "421": // each message has a connection of its own from now on
			want = 4
		}
		if n := fake.Counts().Connections; n != want {
			t.Errorf("%q: %d connections", late, n)
		}
	}
}

// Where it comes too late to be seen before the next message, it judges that one not for good.
func TestSurplusUnderWay(t *testing.T) {
	for _, late := range []string{"250 2.0.0 stored again", "550 5.0.0 or not"} {
		for way, ext := range ways {
			fc := provider()
			fc.Extensions = ext
			n := 0
			fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
				if verb == "MAIL" {
					n++
				}
				if verb == "MAIL" && n == 2 {
					return fakesmtp.Action{Reply: late, Also: true}
				}
				return fakesmtp.Action{}
			}
			fake, u := start(t, fc, nil)
			wantClasses(t, send(t, u, message(t)), "delivered")
			r := send(t, u, message(t))[0]
			if r.Class.Permanent() || r.Class == mail.Delivered && len(fake.Messages()) != 2 {
				t.Errorf("%s, %q: got %s: %s", way, late, r.Class, r.Reply)
			}
			wantClasses(t, send(t, u, message(t)), "delivered")
		}
	}
}

// A server that answers out of step is met once in one flight; then the reply to DATA keeps both in step.
func TestOutOfStepIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS = nil
		fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			if verb == fakesmtp.Content || verb == fakesmtp.Chunk {
				return fakesmtp.Action{Reply: "250 ok\n250 ok", Also: false}
			}
			return fakesmtp.Action{}
		}
		fake, u := startPiped(t, fc, nil)
		r := send(t, u, message(t))[0]
		if r.Class != mail.Delivered || !strings.Contains(r.Note, "more replies than it is asked for") {
			t.Errorf("got %s, note %q", r.Class, r.Note)
		}
		commands := func() string {
			log := strings.Join(fake.Log(), "\n")
			return fmt.Sprint(strings.Count(log, "BDAT "), strings.Count(log, "DATA"))
		}
		r = send(t, u, message(t))[0]
		if got := commands(); r.Class != mail.Delivered || r.Note != "" || got != "1 1" {
			t.Errorf("got %s, note %q, %s", r.Class, r.Note, got)
		}
		time.Sleep(25 * time.Hour) // another day, another try
		wantClasses(t, send(t, u, message(t)), "delivered")
		if got := commands(); got != "2 1" {
			t.Errorf("after a day: %s", got)
		}
	})
}

func TestHabitsAreBounded(t *testing.T) {
	var h habits
	now := time.Now()
	for i := range 100 {
		offer := fmt.Sprint("SIZE ", i)
		for j := range 100 {
			h.learn(offer, fmt.Sprint(j), now.Add(time.Duration(i)*time.Second))
		}
	}
	if len(h.known) > maxOffers || len(h.known["SIZE 99"]) != maxHabits {
		t.Errorf("%d offers, %d habits", len(h.known), len(h.known["SIZE 99"]))
	}
	if h.of("SIZE 0", now) != nil {
		t.Error("the oldest did not make room")
	}
	if got := h.of("SIZE 99", now.Add(habitLasts+99*time.Second)); got != nil {
		t.Errorf("after a day: %v", got)
	}
	if key := offerKey([]string{string(bytes.Repeat([]byte("x"), 1<<20))}); len(key) != maxOfferKey {
		t.Error("an offer of any length is kept")
	}
}
