package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// An upstream that cannot read on before its replies are read must not make both wait for ever.
func TestRepliesAreReadWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS = nil
		long := strings.Repeat("250-"+strings.Repeat("x", 900)+"\n", 15)
		fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			if verb == "RCPT" { // some 14 KiB each, sent at once, before the line that ends the reply
				return fakesmtp.Action{Reply: strings.TrimSuffix(long, "\n"), Flush: true, Also: true}
			}
			return fakesmtp.Action{}
		}
		fake, u := startPiped(t, fc, func(cfg *Config) { cfg.MaxRecipients = 1000 })
		tr := many(t, 800)
		tr.Content = mail.BytesContent(large(2 << 20))
		begun := time.Now()
		for i, r := range send(t, u, tr) {
			if r.Class != mail.Delivered {
				t.Fatalf("recipient %d: %s %s (%v)", i, r.Class, r.Reply, r.Err)
			}
		}
		if m := fake.Messages(); len(m) != 1 || len(m[0].To) != 800 || time.Since(begun) != 0 {
			t.Errorf("%d messages after %v", len(m), time.Since(begun))
		}
	})
}

func TestLargeMessageRefusals(t *testing.T) {
	big := large(1200 << 10)
	for _, c := range []struct {
		verb, reply string
		chunking    bool
		want        string
	}{
		{"MAIL", "552 5.3.4 too big", true, "message-fault"},
		{"RCPT", "550 5.1.1 no such user", true, "recipient-fault"},
		{"BDAT", "552 5.3.4 too big", true, "message-fault"}, // before the chunk is read
		{fakesmtp.Chunk, "552 5.3.4 too big", true, "message-fault"},
		{"DATA", "552 5.3.4 too big", false, "message-fault"},
		{fakesmtp.Content, "552 5.3.4 too big", false, "message-fault"},
	} {
		for _, content := range []mail.Content{mail.BytesContent(big), &stream{data: big, size: int64(len(big))}} {
			fc := provider()
			if !c.chunking {
				fc.Extensions = fakesmtp.Without("CHUNKING")
			}
			fc.Hook = hookOn(c.verb, 1, fakesmtp.Action{Reply: c.reply, Flush: true})
			fake, u := start(t, fc, nil)
			tr := message(t)
			tr.Content = content
			wantClasses(t, send(t, u, tr), c.want)
			if len(fake.Messages()) != 0 {
				t.Errorf("%s: a message was taken", c.verb)
			}
			wantClasses(t, send(t, u, tr), "delivered")
			if m := fake.Messages(); len(m) != 1 || !bytes.Equal(m[0].Data, big) {
				t.Errorf("%s: the next message was damaged", c.verb)
			}
		}
	}
}

func TestLargeMessageDrops(t *testing.T) {
	big := large(1 << 20) // many times what the pipe between us takes
	never := make(chan struct{})
	for _, c := range []struct {
		verb      string
		chunking  bool
		action    fakesmtp.Action
		class     mail.Class
		uncertain bool
	}{
		{"MAIL", true, fakesmtp.Action{Drop: true}, mail.Deferral, false},
		{"BDAT", true, fakesmtp.Action{Drop: true}, mail.Deferral, false},
		{"BDAT", true, fakesmtp.Action{Reset: true}, mail.Deferral, false},
		{fakesmtp.Chunk, true, fakesmtp.Action{Drop: true}, mail.Deferral, true},
		{"DATA", false, fakesmtp.Action{Reply: "354 go", Drop: true}, mail.Deferral, false},
		{fakesmtp.Content, false, fakesmtp.Action{Drop: true}, mail.Deferral, true},
		{"DATA", false, fakesmtp.Action{Reply: "354 go\n421 4.3.2 closing"}, mail.Deferral, false},
		// Takes the message before it has it: what it does not read cannot leave us.
		{"BDAT", true, fakesmtp.Action{Reply: "250 2.0.0 taken", Deaf: never}, mail.Deferral, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			if c.action.Deaf != nil {
				gone := make(chan struct{})
				c.action.Deaf = gone
				defer close(gone)
			}
			fc := provider()
			if !c.chunking {
				fc.Extensions = fakesmtp.Without("CHUNKING")
			}
			fc.Hook = hookOn(c.verb, 1, c.action)
			fake, u := startPiped(t, fc, nil)
			tr := message(t)
			tr.Content = mail.BytesContent(big)
			r := send(t, u, tr)[0]
			if r.Class != c.class || r.Uncertain != c.uncertain {
				t.Errorf("%s %+v: got %s uncertain=%v: %s (%v)", c.verb, c.action, r.Class, r.Uncertain, r.Reply, r.Err)
			}
			if n := len(fake.Messages()); n > 0 {
				t.Errorf("%s: %d messages", c.verb, n)
			}
		})
	}
}

// A pooled connection that is found dead in the middle of a large message costs nothing but another connection.
func TestLargeMessageOnStaleConnection(t *testing.T) {
	big := large(1200 << 10)
	fc := provider()
	fc.Hook = hookOn("MAIL", 2, fakesmtp.Action{Drop: true})
	fake, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t)), "delivered")
	tr := message(t)
	s := &stream{data: big, size: int64(len(big))}
	tr.Content = s
	r := send(t, u, tr)
	wantClasses(t, r, "delivered")
	if m := fake.Messages(); len(m) != 2 || !bytes.Equal(m[1].Data, big) || r[0].Uncertain {
		t.Errorf("%d messages, uncertain=%v", len(m), r[0].Uncertain)
	}
}

// A message whose content cannot be read to the end is never ended: no upstream can take it for complete.
func TestContentErrorsNeverEndTheMessage(t *testing.T) {
	for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING")} {
		for _, size := range []int{10 << 10, 300 << 10, 3 << 20} {
			for _, cut := range []int{0, size / 2, size - 1} {
				for _, fail := range []error{errDisk, nil} { // nil: it just ends too early
					whole := large(size)
					fc := provider()
					fc.Extensions = ext
					fake, u := start(t, fc, nil)
					tr := message(t)
					tr.Content = &stream{data: whole[:cut], size: int64(len(whole)), fail: fail}
					r := send(t, u, tr)[0]
					if r.Class != mail.Deferral || r.Uncertain || r.Stage != mail.StageData ||
						r.Reply.Enhanced != "4.3.0" || r.Err == nil || fail != nil && !errors.Is(r.Err, fail) {
						t.Errorf("%v %d of %d: got %s uncertain=%v: %s (%v)", ext, cut, size, r.Class, r.Uncertain,
							r.Reply, r.Err)
					}
					if len(fake.Messages()) != 0 {
						t.Errorf("%v %d of %d: a cut message was taken", ext, cut, size)
					}
					if state(u).Status != upstream.Ready {
						t.Errorf("our disk made the upstream %s", state(u).Status)
					}
				}
			}
		}
	}
}

func TestBareLineEndsAreNotSentByData(t *testing.T) {
	for _, c := range []string{"a\nb\r\n", "a\rb\r\n", "a\r\r\nb\r\n", "\n.\r\n", "a\r", "a\n.\nb\r\n",
		"x" + strings.Repeat("y", 100<<10) + "\n.\r\n"} {
		fc := provider()
		fc.Extensions = fakesmtp.Without("CHUNKING")
		fake, u := start(t, fc, nil)
		tr := message(t)
		tr.Content = mail.BytesContent(c)
		r := send(t, u, tr)[0]
		if r.Class != mail.MessageFault || r.Reply.Enhanced != "5.6.0" || len(fake.Messages()) != 0 {
			t.Errorf("%.20q: got %s: %s, %d taken", c, r.Class, r.Reply, len(fake.Messages()))
		}
	}
}

// Stuffing in any pieces is the same as stuffing at once, and unstuffing gives the content back.
func TestStuffing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.SampledFrom([]string{"", ".", "..", "a", ".a", "a.", " ", "longer line"})).Draw(t,
			"lines")
		src := []byte(strings.Join(append(lines, ""), "\r\n"))
		if rapid.Bool().Draw(t, "unfinished") {
			src = append(src, "rest"...)
		}
		var (
			s    stuffer
			dst  []byte
			err  error
			want strings.Builder
		)
		for rest := src; len(rest) > 0 && err == nil; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			dst, err = s.append(dst, rest[:n])
			rest = rest[n:]
		}
		if dst, err = s.end(dst, err); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitAfterSeq(string(src), "\r\n") {
			if strings.HasPrefix(line, ".") {
				want.WriteByte('.')
			}
			want.WriteString(line)
		}
		if !strings.HasSuffix(want.String(), "\r\n") && len(src) > 0 {
			want.WriteString("\r\n")
		}
		want.WriteString(".\r\n")
		if string(dst) != want.String() {
			t.Fatalf("got %q, want %q", dst, want.String())
		}
	})
}

// FuzzStuffing holds the fast scan to the definition: bare CR or LF is refused, everything else passes.
func FuzzStuffing(f *testing.F) {
	f.Add([]byte("a\r\n.\r\n"), 3)
	f.Add([]byte("\r\r\n"), 1)
	f.Add([]byte("\n"), 1)
	f.Fuzz(func(t *testing.T, src []byte, at int) {
		at = min(max(at, 0), len(src))
		var s stuffer
		dst, err := s.append(nil, src[:at])
		if err == nil {
			dst, err = s.append(dst, src[at:])
		}
		_, err = s.end(dst, err)
		plain := bytes.ReplaceAll(src, []byte("\r\n"), nil)
		if bad := bytes.ContainsAny(plain, "\r\n") || bytes.Contains(src, []byte("\r\r\n")); bad != (err != nil) {
			t.Errorf("%q: %v", src, err)
		}
	})
}

// Whatever an upstream does at a random stage, no message is lost for good, and none is called delivered that was not
// taken.
func TestRandomUpstream(t *testing.T) {
	actions := []fakesmtp.Action{
		{Reply: "421 4.3.2 closing"}, {Reply: "450 4.2.0 later"}, {Drop: true}, {Reset: true},
		{Reply: "what?"}, {Reply: "550-5.1.1 two\n550 5.1.1 lines"}, {Reply: "354 go on"}, {Reply: "221 2.0.0 bye"},
	}
	verbs := []string{"MAIL", "RCPT", "DATA", "BDAT", fakesmtp.Chunk, fakesmtp.Content, "RSET"}
	met := map[mail.Class]int{}
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		verb, action, nth := verbs[rng.IntN(len(verbs))], actions[rng.IntN(len(actions))], 1+rng.IntN(3)
		fc := provider()
		fc.TLS = nil
		if rng.IntN(2) == 0 {
			fc.Extensions = fakesmtp.Without("CHUNKING")
		}
		fc.Hook = hookOn(verb, nth, action)
		synctest.Test(t, func(t *testing.T) {
			fake, u := startPiped(t, fc, nil)
			for i := range 4 {
				s, _ := u.Reserve(time.Now(), "")
				if s == nil {
					break // backs off: allowed
				}
				tr := message(t)
				text := fmt.Sprintf("Subject: %d.%d\r\n\r\n", seed, i)
				tr.Content = mail.BytesContent(text)
				if rng.IntN(2) == 0 {
					tr.Content = mail.BytesContent(text + string(large(100<<10)))
				}
				r := use(s, t.Context(), tr)[0]
				met[r.Class]++
				synctest.Wait() // what the upstream still takes of it, it has taken
				taken := 0
				for _, m := range fake.Messages() {
					if bytes.HasPrefix(m.Data, []byte(text)) {
						taken++
					}
				}
				if r.Class == mail.Delivered && taken == 0 || taken > 0 && r.Class != mail.Delivered && !r.Uncertain {
					t.Errorf("seed %d (%s #%d %+v): message %d is %s uncertain=%v, taken %d times: %s (%v)", seed, verb,
						nth, action, i, r.Class, r.Uncertain, taken, r.Reply, r.Err)
				}
			}
		})
	}
	for _, c := range []mail.Class{mail.Delivered, mail.Deferral, mail.BackPressure, mail.RecipientFault,
		mail.MessageFault} {
		if met[c] == 0 {
			t.Errorf("no message was a %s: the test proves less than it says; %v", c, met)
		}
	}
}
