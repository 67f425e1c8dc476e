package smtp

import (
	"strings"
	"testing"

	"postern/mail"
)

func TestParseEHLO(t *testing.T) {
	x := parseEHLO(mail.Reply{Code: 250, Text: "mx.example.com greets you\nsize 35882577\n8bitmime\nAUTH=PLAIN " +
		"LOGIN\nAUTH LOGIN XOAUTH2\nLIMITS RCPTMAX=50 MAILMAX=7 RCPTDOMAINMAX=1\nPIPELINING\n\nX-UNKNOWN a " +
		"b\nCHUNKING"})
	if !x.eightBit || !x.pipelining || !x.chunking || x.startTLS || x.size != 35882577 || x.rcptMax != 50 ||
		x.mailMax != 7 {
		t.Errorf("got %+v", x)
	}
	if got := strings.Join(x.auth, " "); got != "PLAIN LOGIN XOAUTH2" {
		t.Errorf("mechanisms %q", got)
	}
	if x = parseEHLO(mail.Reply{Code: 250, Text: "PIPELINING"}); x.pipelining {
		t.Error("the greeting was taken for an extension")
	}
}

// FuzzParseEHLO: no offer makes it panic, or is read as a size below nothing.
func FuzzParseEHLO(f *testing.F) {
	f.Add("mx.example.com\nPIPELINING\nAUTH=PLAIN LOGIN\nSIZE 1000\nLIMITS RCPTMAX=5 MAILMAX=x")
	f.Fuzz(func(t *testing.T, text string) {
		if x := parseEHLO(mail.Reply{Code: 250, Text: text}); x.size < 0 || x.rcptMax < 0 || x.mailMax < 0 {
			t.Errorf("%+v", x)
		}
	})
}
