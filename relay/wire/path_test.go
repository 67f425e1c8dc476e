package wire

import (
	"strings"
	"testing"

	"postern/mail"
)

func TestParseMail(t *testing.T) {
	for arg, want := range map[string]mail.Envelope{
		"FROM:<>":                 {},
		"from: <Ann@Example.COM>": {From: mail.Address{Local: "Ann", Domain: "example.com"}},
		`FROM:<"a b>c"@example.com> size=7`: {From: mail.Address{Local: "a b>c", Domain: "example.com"},
			Size: 7},
		`FROM:<"a\"> x"@example.com>`:              {From: mail.Address{Local: `a"> x`, Domain: "example.com"}},
		"FROM:<> BODY=8BITMIME SMTPUTF8":           {Body: mail.Body8Bit, UTF8: true},
		"FROM:<ä@example.com> SMTPUTF8":            {From: mail.Address{Local: "ä", Domain: "example.com"}, UTF8: true},
		"FROM:<> RET=FULL ENVID=QQ+2B+20x":         {Ret: mail.RetFull, EnvID: "QQ+ x"},
		"FROM:<> AUTH=<> ":                         {},
		"FROM:ann@example.com":                     {From: mail.Address{Local: "ann", Domain: "example.com"}},
		"FROM: ann@example.com  SIZE=7":            {From: mail.Address{Local: "ann", Domain: "example.com"}, Size: 7},
		"FROM : <ann@example.com>":                 {From: mail.Address{Local: "ann", Domain: "example.com"}},
		"FROM: < ann@example.com > SIZE=7":         {From: mail.Address{Local: "ann", Domain: "example.com"}, Size: 7},
		"FROM:<a..b@example.com>":                  {From: mail.Address{Local: "a..b", Domain: "example.com"}},
		"FROM:<.ann.@example.com>":                 {From: mail.Address{Local: ".ann.", Domain: "example.com"}},
		"FROM:ann.@example.com SIZE=7":             {From: mail.Address{Local: "ann.", Domain: "example.com"}, Size: 7},
		"FROM:<" + longLocal + "@example.com>":     {From: mail.Address{Local: longLocal, Domain: "example.com"}},
		"FROM:<> AUTH=ann+40example.com":           {},
		"FROM:<> SIZE=999999999999999999 RET=HDRS": {Size: 999999999999999999, Ret: mail.RetHeaders},
	} {
		got, reply := parseMail(arg, nil, false)
		if !reply.IsZero() || got.From != want.From || got.Size != want.Size || got.Body != want.Body ||
			got.UTF8 != want.UTF8 || got.Ret != want.Ret || got.EnvID != want.EnvID {
			t.Errorf("%s: got %+v, %v", arg, got, reply)
		}
	}
	for arg, want := range map[string]string{
		"":                         "501 5.1.7",
		"FROM":                     "501 5.1.7",
		"FROM:":                    "501 5.1.7",
		"TO:<a@example.com>":       "501 5.1.7",
		`FROM:<"a@example.com>`:    "501 5.1.7",
		`FROM:<""@example.com>`:    "501 5.1.7",
		"FROM:<a@example.com>>":    "501 5.1.7",
		"FROM:<a b@example.com>":   "501 5.1.7",
		"FROM:<a@exam\x00ple.com>": "501 5.1.7",
		"FROM:<@r:a@example.com>":  "501 5.1.7 source routes",
		"FROM:<" + strings.Repeat("a", 501) + "@example.com>": "501 5.1.7 the sender is too long",
		"FROM:a@example.com>":          "501 5.1.7",
		"FROM:<a@example.com":          "501 5.1.7",
		`FROM:"a b"@example.com`:       "501 5.1.7", // two readings: where does it end?
		"FROM:a@b.example,c@d.example": "501 5.1.7",
		"FROM:a b@example.com":         "501 5.1.7",
		"FROM:Ann <a@example.com>":     "501 5.1.7",
		`FROM:"Ann" <a@example.com>`:   "501 5.1.7",
		"FROM:@r:a@example.com":        "501 5.1.7",
		"FROM: SIZE=10":                "501 5.1.7",
		"FROM <a@example.com>":         "501 5.1.7",
		"FROM:<...@example.com>":       "501 5.1.7",
		"FROM:<a..b c@example.com>":    "501 5.1.7",
		"FROM:<a..b@exam..ple.com>":    "501 5.1.7",
		"FROM:<root>": `501 5.1.7 the sender is not a complete address: expected ` +
			`user@example.com, not "root"`,
		"FROM:Ann <b@example.com>": "501 5.1.7 the sender cannot be read: expected MAIL " +
			"FROM:<user@example.com>, not MAIL FROM:Ann <b@example.com>",
		"FROM:<ä@example.com>":                      "553 5.6.7",
		"FROM:<a@ä.example>":                        "553 5.6.7",
		"FROM:<> SIZE=1234567890123456789":          "501 5.5.4",
		"FROM:<> SIZE=1x":                           "501 5.5.4",
		"FROM:<> size=1 SIZE=1":                     "501 5.5.4 parameter SIZE given twice",
		"FROM:<> =1":                                "501 5.5.4",
		"FROM:<> X-Y=1":                             "555 5.5.4 unknown parameter X-Y",
		"FROM:<> BODY=":                             "501 5.5.4 parameter BODY has no value",
		"FROM:<> ENVID=" + strings.Repeat("a", 101): "501 5.5.4",
		"FROM:<> ENVID=a+0":                         "501 5.5.4",
		"FROM:<> ENVID=a=b":                         "501 5.5.4",
		"FROM:<> ENVID=ä":                           "501 5.5.4",
		"FROM:<> MT-PRIORITY=3":                     "555 5.5.4",
	} {
		if _, reply := parseMail(arg, nil, false); !strings.HasPrefix(reply.String(), want) {
			t.Errorf("%q: got %v, want %s", arg, reply, want)
		}
	}
}

// longLocal is as long as those of variable envelope return paths get.
var longLocal = "bounce+" + strings.Repeat("3f9c2a17e", 30) + "-bob=example.net"

// TestReplacedSender: what cannot be read is asked about, and only that.
func TestReplacedSender(t *testing.T) {
	replaced := mail.Address{Local: "scanner", Domain: "example.com"}
	replace := func(string) (mail.Address, bool) { return replaced, true }
	for arg, want := range map[string]mail.Address{
		"FROM:<root>":                              replaced,
		"FROM:<scanner 2> SIZE=10":                 replaced,
		"FROM:root":                                replaced,
		"FROM:<KM_C258@>":                          replaced,
		"FROM:<root (Cron Daemon)>":                replaced,
		"FROM:<\xe4nn@example.com>":                replaced,
		"FROM:<\u00e4@example.com>":                replaced, // without SMTPUTF8
		"FROM:<Keepalived <keepalived@host>>":      replaced,
		`FROM:"The NAS" <nas@example.net> SIZE=10`: replaced,
		"FROM:Ann <ann@example.com>":               replaced,
		"FROM <ann@example.com>":                   replaced,
		"FROM:<ann@example.com":                    replaced,
		`FROM:"scanner"`:                           replaced,
		"FROM:":                                    replaced,
		"FROM: SIZE=10":                            replaced,
		"FROM:scan to mail  BODY=8BITMIME SIZE=7":  replaced,
		"FROM:<ann@example.com>":                   {Local: "ann", Domain: "example.com"},
		"FROM:<>":                                  {},
		"FROM: < >":                                {},
	} {
		if env, reply := parseMail(arg, replace, false); !reply.IsZero() || env.From != want {
			t.Errorf("%q: %+v, %v", arg, env, reply)
		}
	}
	env, reply := parseMail("FROM:scan to mail  BODY=8BITMIME SIZE=7", replace, false)
	if !reply.IsZero() || env.Size != 7 || env.Body != mail.Body8Bit {
		t.Errorf("parameters: %+v, %v", env, reply)
	}
	for arg, want := range map[string]string{
		"TO:<ann@example.com>":    "501 5.1.7",
		"":                        "501 5.1.7",
		"FROM:scan to mail SIZE=": "501 5.5.4 parameter SIZE has no value",
	} {
		if _, reply := parseMail(arg, replace, false); !strings.HasPrefix(reply.String(), want) {
			t.Errorf("%q: %v, want %s", arg, reply, want)
		}
	}
	for _, arg := range []string{"FROM:<root>", "FROM ann@example.com", "FROMann@example.com",
		"FROM:Ann <ann@example.com>", "FROM:"} {
		if env, reply := parseMail(arg,
			func(string) (mail.Address, bool) { return mail.Address{}, false }, false); reply.Code != 501 ||
			!env.From.IsNull() {
			t.Errorf("%q, not replaced: %v, %v", arg, env, reply)
		}
	}
}

func TestParseRcpt(t *testing.T) {
	for arg, want := range map[string]mail.Recipient{
		"TO:<b@example.net>": {To: mail.Address{Local: "b", Domain: "example.net"}},
		"TO:b@example.net NOTIFY=NEVER": {To: mail.Address{Local: "b", Domain: "example.net"},
			Notify: mail.NotifyNever},
		"TO:<b..c.@example.net>": {To: mail.Address{Local: "b..c.", Domain: "example.net"}},
		"TO:<" + longLocal + "@example.net>": {To: mail.Address{Local: longLocal,
			Domain: "example.net"}},
		"TO:<postMaster>": {To: mail.Address{Local: "postMaster",
			Domain: "relay.example.com"}},
		"TO:<b@example.net> NOTIFY=never": {To: mail.Address{Local: "b", Domain: "example.net"},
			Notify: mail.NotifyNever},
		"TO:<b@example.net> NOTIFY=SUCCESS,DELAY,FAILURE": {To: mail.Address{Local: "b", Domain: "example.net"},
			Notify: mail.NotifySuccess | mail.NotifyDelay | mail.NotifyFailure},
		"TO:<b@example.net> ORCPT=RFC822;x+3Dy@example.org": {To: mail.Address{Local: "b", Domain: "example.net"},
			ORcpt: "rfc822;x=y@example.org"},
		`TO:<b@example.net> ORCPT=utf-8;x\x{E4}@example.org`: {To: mail.Address{Local: "b", Domain: "example.net"},
			ORcpt: "utf-8;xä@example.org"},
		`TO:<ü@example.net> ORCPT=utf-8;xä@example.org`: {To: mail.Address{Local: "ü", Domain: "example.net"},
			ORcpt: "utf-8;xä@example.org"},
		`TO:<"@r:x"@[IPv6:2001:DB8::1]>`: {To: mail.Address{Local: "@r:x", Domain: "[IPv6:2001:db8::1]"}},
		"TO:<b!c%d@example.net>":         {To: mail.Address{Local: "b!c%d", Domain: "example.net"}},
	} {
		got, reply := parseRcpt(arg, true, "relay.example.com", false)
		if !reply.IsZero() || got != want {
			t.Errorf("%s: got %+v, %v", arg, got, reply)
		}
	}
	for arg, want := range map[string]string{
		"TO:<>":                          "501 5.1.3",
		"TO:<b>":                         "501 5.1.3",
		"TO:b@example.net,c@example.net": "501 5.1.3",
		"TO:<b@example.net;c@x.example>": `501 5.1.3 the recipient is more than one address: enter each by itself, ` +
			`not "b@example.net;c@x.example"`,
		"TO:":                   "501 5.1.3",
		"TO:<@r:b@example.net>": "501 5.1.3 source routes",
		"TO:<ü@example.net>":    "553 5.6.7",
		"TO:<b@example.net> NOTIFY=NEVER,SUCCESS":            "501 5.5.4",
		"TO:<b@example.net> NOTIFY":                          "501 5.5.4",
		"TO:<b@example.net> ORCPT=rfc822":                    "501 5.5.4",
		"TO:<b@example.net> ORCPT=rfc822;":                   "501 5.5.4",
		"TO:<b@example.net> ORCPT=rfc822;a+0D+0Ab@x.example": "501 5.5.4",
		"TO:<b@example.net> ORCPT=rfc822;a+7Fb@x.example":    "501 5.5.4",
		`TO:<b@example.net> ORCPT=utf-8;a\x{0A}@x.example`:   "501 5.5.4",
		`TO:<b@example.net> ORCPT=utf-8;a\x{202E}@x.example`: "501 5.5.4",
		`TO:<b@example.net> ORCPT=utf-8;a\x{D800}@x.example`: "501 5.5.4",
		"TO:<b@example.net> ORCPT=utf-8;ä@x.example":         "501 5.5.4",
		"TO:<b@example.net> RET=FULL":                        "555 5.5.4",
	} {
		if _, reply := parseRcpt(arg, false, "relay.example.com", false); !strings.HasPrefix(reply.String(), want) {
			t.Errorf("%q: got %v, want %s", arg, reply, want)
		}
	}
}

// FuzzCommand: what passes the parser can be emitted again and means the same, and no reply has a
// line that we did not write.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<ann@example.com> SIZE=10 BODY=8BITMIME", `MAIL FROM:<"v@x> NOTIFY=NEVER <q"@example.com>`,
		"MAIL FROM:<> RET=HDRS ENVID=a+2Bb SMTPUTF8",
		`RCPT TO:<"a\"b"@example.net> NOTIFY=SUCCESS ORCPT=rfc822;a+2Bb@example.net`, "RCPT TO:<@a,@b:c@example.net>",
		"RCPT TO:<Postmaster>",
		"RCPT TO:<a@[IPv6:2001:db8::1]>", "MAIL FROM:ann@example.com SIZE=10", "MAIL FROM: < a..b.@example.com >",
		"RCPT TO:.b@example.net", `RCPT TO:<ä@exämple.net> ORCPT=utf-8;\x{E4}@example.net`, "EHLO [192.0.2.1]",
		"AUTH PLAIN =", "BDAT 10 LAST", "MAIL FROM:<a@b>\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		verb, arg := splitCommand(line)
		if n, _, ok := parseChunk(arg); ok && n < 0 {
			t.Fatalf("chunk of %d octets", n)
		}
		for _, tolerant := range []bool{false, true} {
			checkCommand(t, line, verb, arg, tolerant)
		}
	})
}

// checkCommand: what was read from a command is read the same from its canonical form.
func checkCommand(t *testing.T, line, verb, arg string, tolerant bool) {
	switch verb {
	case "MAIL":
		env, reply := parseMail(arg, nil, tolerant)
		if !reply.IsZero() {
			wellFormed(t, reply)
			return
		}
		again, reply := parseMail("FROM:"+env.From.Path()+utf8Parameter(env.UTF8), nil, false)
		if !reply.IsZero() || again.From != env.From || !printable(env.EnvID) || env.Size < 0 {
			t.Fatalf("%q: %+v, again %+v, %v", line, env, again, reply)
		}
	case "RCPT":
		r, reply := parseRcpt(arg, true, "relay.example.com", tolerant)
		if !reply.IsZero() {
			wellFormed(t, reply)
			return
		}
		again, reply := parseRcpt("TO:"+r.To.Path(), true, "relay.example.com", false)
		if !reply.IsZero() || again.To != r.To || !printable(r.ORcpt) {
			t.Fatalf("%q: %+v, again %+v, %v", line, r, again, reply)
		}
	}
}

func utf8Parameter(on bool) string {
	if on {
		return " SMTPUTF8"
	}
	return ""
}

func printable(s string) bool { return mail.Printable(s) == s }

func wellFormed(t *testing.T, r mail.Reply) {
	t.Helper()
	b := string(appendReply(nil, r))
	if !printable(strings.TrimSuffix(b, "\r\n")) || !strings.HasSuffix(b, "\r\n") || r.Code < 400 {
		t.Fatalf("reply %q", b)
	}
}
