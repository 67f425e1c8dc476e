package mail

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestReplyWire(t *testing.T) {
	long := strings.Repeat("word ", 120) + "end"
	for _, c := range []struct {
		name string
		in   Reply
		want string
	}{
		{"plain", R(250, "2.0.0", "queued as %s", "abc"), "250 2.0.0 queued as abc\r\n"},
		{"percent without arguments", R(250, "", "100% done"), "250 100% done\r\n"},
		{"lines", R(550, "5.7.1", "one\ntwo"), "550-5.7.1 one\r\n550 5.7.1 two\r\n"},
		{"no enhanced code", R(354, "", "go on"), "354 go on\r\n"},
		{"CRLF in the text", R(550, "5.0.0", "no\r\n250 2.0.0 yes\r\x00\x1b"),
			"550-5.0.0 no\r\n550 5.0.0 250 2.0.0 yes???\r\n"},
		{"CRLF in the enhanced code", Reply{550, "5.0.0\r\n250 ok", "no"}, "550 5.0.0??250 ok no\r\n"},
		{"long line", R(451, "4.3.0", "%s", long),
			"451-4.3.0 " + strings.TrimSuffix(strings.Repeat("word ", 96), " ") + "\r\n" +
				"451 4.3.0 " + strings.Repeat("word ", 24) + "end\r\n"},
	} {
		if got := string(c.in.Wire()); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestReplyClass(t *testing.T) {
	for code, want := range map[int][3]bool{
		250: {true, false, false}, 354: {true, false, false}, 421: {false, true, false}, 550: {false, false, true},
		0: {false, false, false},
	} {
		r := Reply{Code: code}
		if got := [3]bool{r.OK(), r.Temporary(), r.Permanent()}; got != want || r.IsZero() != (code == 0) {
			t.Errorf("%d: OK, Temporary, Permanent = %v", code, got)
		}
	}
}

func TestReplyString(t *testing.T) {
	for _, c := range []struct {
		in   Reply
		want string
	}{
		{Reply{}, ""},
		{R(250, "", ""), "250"},
		{R(550, "5.1.1", "no\nsuch user"), "550 5.1.1 no such user"},
	} {
		if got := c.in.String(); got != c.want {
			t.Errorf("String() = %q, want %q", got, c.want)
		}
	}
}

func TestReplyFor(t *testing.T) {
	inner := errors.New("disk on fire")
	err := fmt.Errorf("commit: %w", Refuse(R(451, "4.3.0", "try again later"), inner))
	reply, ok := ReplyFor(err)
	if !ok || reply.Code != 451 || !errors.Is(err, inner) {
		t.Errorf("ReplyFor = %v, %v", reply, ok)
	}
	if bytes.Contains(reply.Wire(), []byte("fire")) {
		t.Error("the inner error is told outward")
	}
	if _, ok := ReplyFor(inner); ok {
		t.Error("a plain error has a reply")
	}
	if got := Refuse(R(550, "", "no"), nil).Error(); got != "550 no" {
		t.Errorf("Error() = %q", got)
	}
}

func FuzzReplyWire(f *testing.F) {
	f.Add("2.0.0", "text")
	f.Add("5.0.0\r\n250", "a\r\n250 b\r\rc\n\nd")
	f.Add("", strings.Repeat("ü", 700))
	f.Fuzz(func(t *testing.T, enhanced, text string) {
		wire := R(550, enhanced, "%s", text).Wire()
		if !bytes.HasSuffix(wire, []byte("\r\n")) {
			t.Fatalf("%q does not end with CRLF", wire)
		}
		lines := strings.Split(strings.TrimSuffix(string(wire), "\r\n"), "\r\n")
		for i, line := range lines {
			separator := "-"
			if i == len(lines)-1 {
				separator = " "
			}
			if !strings.HasPrefix(line, "550"+separator) || Printable(line) != line {
				t.Fatalf("line %d of %q is %q", i, wire, line)
			}
			if len(line)+2 > 512 && len(enhanced) < 12 {
				t.Fatalf("line of %d octets", len(line))
			}
		}
	})
}

func TestNewID(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	a, b := NewID(now), NewID(now.Add(time.Millisecond))
	if len(a) != 16 || a >= b || NewID(now) == a {
		t.Errorf("IDs %q and %q", a, b)
	}
	if strings.Trim(a, "0123456789abcdefghjkmnpqrstvwxyz") != "" {
		t.Errorf("ID %q has a look-alike", a)
	}
	if got := a[:9]; got != NewID(now)[:9] {
		t.Errorf("IDs of one moment begin with %q and otherwise", got)
	}
}

func TestClass(t *testing.T) {
	for c := Unknown; c <= BackPressure; c++ {
		if want := c == RecipientFault || c == MessageFault; c.Permanent() != want || c.String() == "" {
			t.Errorf("%v: Permanent = %v", c, c.Permanent())
		}
	}
	if got := Class(200).String(); got != "unknown" {
		t.Errorf("Class(200) = %s", strconv.Quote(got))
	}
}
