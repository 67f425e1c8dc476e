package mail

import (
	netmail "net/mail"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func judge(t testing.TB, s string) (Authorship, error) {
	t.Helper()
	return JudgeAuthors(header(t, s))
}

func addresses(list []Address) string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

func TestJudgeAuthorsAccepts(t *testing.T) {
	for _, c := range []struct{ name, in, want, named string }{
		{"plain", "From: me@example.com", "me@example.com", ""},
		{"upper case", "FROM: Me@EXAMPLE.com", "Me@example.com", ""},
		{"angle", "From: <me@example.com>", "me@example.com", ""},
		{"name", "From: Ann Other <me@example.com>", "me@example.com", ""},
		{"dots in the name", "From: John Q. Public <me@example.com>", "me@example.com", ""},
		{"quoted name", `From: "Other, Ann \"A\"" <me@example.com>`, "me@example.com", ""},
		{"empty quoted name", `From: "" <me@example.com>`, "me@example.com", ""},
		{"no space", `From: Ann<me@example.com>`, "me@example.com", ""},
		{"folded", "From: Ann\n Other\n\t<me@example.com>", "me@example.com", ""},
		{"folded first", "From:\n me@example.com", "me@example.com", ""},
		{"encoded", "From: =?utf-8?Q?J=C3=BCrgen?= =?utf-8?B?TcO8bGxlcg==?= <me@example.com>", "me@example.com", ""},
		{"encoded comma", "From: =?utf-8?Q?Other=2C_Ann?= <me@example.com>", "me@example.com", ""},
		{"encoded in latin 1", "From: =?iso-8859-1?Q?J=FCrgen?= <me@example.com>", "me@example.com", ""},
		{"encoded in latin 9", "From: =?iso-8859-15?Q?J=FCrgen_=A4?= <me@example.com>", "me@example.com", ""},
		{"encoded in JIS with 0x40 octets", "From: =?iso-2022-jp?B?GyRCO1tAPBsoQg==?= <me@example.com>", "me@example.com", ""},
		{"encoded in Shift JIS with 0x40", "From: =?shift_jis?B?g0CDQA==?= <me@example.com>", "me@example.com", ""},
		{"raw UTF-8", "From: Jürgen Müller <me@example.com>", "me@example.com", ""},
		{"raw UTF-8 quoted", "From: \"Müller, Jürgen\" <me@example.com>", "me@example.com", ""},
		{"right-to-left mark", "From: \"שלום\u200f\" <me@example.com>", "me@example.com", ""},
		{"emoji", "From: Ann 👩\u200d🔧 <me@example.com>", "me@example.com", ""},
		{"UTF-8 address", "From: <jürgen@bücher.example>", "jürgen@bücher.example", ""},
		{"quoted local part", `From: "a b"@example.com`, `"a b"@example.com`, ""},
		{"quoted local part in angles", `From: Ann <"a,b<c"@example.com>`, `"a,b<c"@example.com`, ""},
		{"literal", `From: me@[192.0.2.1]`, `me@[192.0.2.1]`, ""},
		{"cron", "From: root@host.example.com (Cron Daemon)", "root@host.example.com", ""},
		{"list", `From: a@example.com, "B, b" <b@example.org>,c@example.net`, "a@example.com b@example.org c@example.net", ""},
		{"own address as name", `From: "Me@Example.com" <me@example.com>`, "me@example.com", ""},
		{"own address in single quotes", `From: "'me@example.com'" <me@example.com>`, "me@example.com", ""},
		{"own address encoded", `From: =?utf-8?Q?me=40example.com?= <me@example.com>`, "me@example.com", ""},
		{"at sign that is no address", `From: "Ann @ Home, Bob@Acme" <me@example.com>`, "me@example.com", ""},
		{"other address as name", `From: "ceo@example.net" <me@example.com>`, "me@example.com", "ceo@example.net"},
		{"other address in a name", `From: "the boss, ceo@example.net (via us)" <me@example.com>`, "me@example.com", "ceo@example.net"},
		{"other address in curly quotes", "From: \"“ceo@example.net”\" <me@example.com>", "me@example.com", "ceo@example.net"},
		{"wide at sign", "From: \"ceo＠example.net\" <me@example.com>", "me@example.com", "ceo@example.net"},
		{"angles in quotes", `From: "<ceo@example.net>" <me@example.com>`, "me@example.com", "ceo@example.net"},
	} {
		a, err := judge(t, c.in+"\n\n")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := addresses(a.Authors); got != c.want {
			t.Errorf("%s: authors %q, want %q", c.name, got, c.want)
		}
		if got := addresses(a.Named); got != c.named {
			t.Errorf("%s: named %q, want %q", c.name, got, c.named)
		}
	}
}

func TestJudgeAuthorsRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, reason string }{
		{"two From fields", "From: me@example.com\nfrom: you@example.net", "stands 2 times"},
		{"empty", "From:", "empty place"},
		{"empty entry", "From: a@example.com,,b@example.com", "empty place"},
		{"trailing comma", "From: a@example.com,", "empty place"},
		{"null path", "From: <>", "malformed"},
		{"name only", "From: Ann Other", "malformed"},
		{"local only", "From: root", "malformed"},
		{"group", "From: friends: me@example.com;", "group"},
		{"empty group", "From: undisclosed-recipients:;", "group"},
		{"group with names", "From: friends: Ann <me@example.com>, Bob <you@example.com>;", "group"},
		{"empty group before", "From: none:;, me@example.com", "group"},
		{"semicolon", "From: me@example.com; you@example.com", "group"},
		{"route", "From: <@a.example,@b.example:me@example.com>", "source route"},
		{"comment first", "From: (you@example.net) me@example.com", "comment"},
		{"comment with an address", "From: me@example.com (you@example.net)", "comment"},
		{"comment nested", "From: me@example.com (a (b))", "comment"},
		{"comment with quote", `From: me@example.com (a \) b)`, "comment"},
		{"comment inside", "From: me@(x)example.com", "comment"},
		{"comment in angles", "From: Ann <me@example.com (x)>", "comment"},
		{"comment in the name", "From: Ann (x) <me@example.com>", "comment"},
		{"comment behind angles", "From: Ann <me@example.com> (x)", "behind <address>"},
		{"comment hides angle", "From: me@example.com (<you@example.net>)", "behind <address>"},
		{"unquoted at", "From: you@example.net <me@example.com>", `unquoted "@"`},
		{"two addresses in one", "From: <you@example.net><me@example.com>", ""},
		{"nested angles", "From: <<me@example.com>>", ""},
		{"text behind", "From: <me@example.com> x", "behind <address>"},
		{"address behind", "From: <me@example.com> you@example.net", "behind <address>"},
		{"space in angles", "From: < me@example.com >", "malformed"},
		{"folded address", "From: me@exam\n ple.com", "malformed"},
		{"space around at", "From: me @ example.com", "malformed"},
		{"two ats", "From: me@example.com@evil.example", "malformed"},
		{"trailing dot", "From: me@example.com.", "malformed"},
		{"open quote", `From: "Ann <me@example.com>`, "quoted string"},
		{"quote behind a backslash", `From: "Ann\" <me@example.com>`, "quoted string"},
		{"brackets in the name", "From: [Ann] <me@example.com>", "special character"},
		{"backslash in the name", `From: Ann\ Other <me@example.com>`, "special character"},
		{"invalid UTF-8", "From: J\xfcrgen <me@example.com>", "UTF-8"},
		{"direction override", "From: \"\u202emoc.elpmaxe\" <me@example.com>", "direction"},
		{"direction override encoded", "From: =?utf-8?Q?=E2=80=AEabc?= <me@example.com>", "direction"},
		{"C1 control", "From: \"a\u0085b\" <me@example.com>", "control"},
		{"encoded control", "From: =?utf-8?Q?a=0D=0Ab?= <me@example.com>", "control"},
		{"encoded NUL", "From: =?utf-8?Q?a=00b?= <me@example.com>", "control"},
		{"encoded other address", "From: =?utf-8?Q?ceo=40example.net?= <me@example.com>", "hides an address"},
		{"encoded in two words", "From: =?utf-8?Q?ceo=40?= =?utf-8?Q?example.net?= <me@example.com>", "hides an address"},
		{"encoded in base64", "From: =?utf-8?B?Y2VvQGV4YW1wbGUubmV0?= <me@example.com>", "hides an address"},
		{"encoded in quotes", `From: "=?utf-8?B?Y2VvQGV4YW1wbGUubmV0?=" <me@example.com>`, "hides an address"},
		{"encoded in another charset", "From: =?koi8-r?Q?ceo=40example.net?= <me@example.com>", "hides an address"},
		{"encoded behind Shift JIS", "From: =?shift_jis?Q?=83=40ceo=40example.net?= <me@example.com>", "hides an address"},
		{"encoded behind JIS", "From: =?iso-2022-jp?Q?=1B$B=3B=5B=1B=28Bceo=40example.net?= <me@example.com>", "hides an address"},
		{"encoded angles", "From: =?utf-8?Q?=3Cceo=40example.net=3E?= <me@example.com>", "hides an address"},
		{"encoded in UTF-16", "From: =?utf-16be?B?AGMAZQBv?= <me@example.com>", "encoded word"},
		{"encoded in UTF-7", "From: =?utf-7?Q?ceo+AEA-example.net?= <me@example.com>", "encoded word"},
		{"encoded word broken", "From: =?utf-8?B?!!!?= <me@example.com>", "encoded word"},
		{"encoded address", "From: =?utf-8?Q?me=40example.com?=", "malformed"},
		{"encoded word in a comment", "From: me@example.com (=?utf-8?Q?ceo=40example.net?=)", "hides an address"},
		{"two Senders", "From: me@example.com\nSender: me@example.com\nSender: me@example.com", "Sender field stands 2 times"},
		{"Sender of two", "From: me@example.com\nSender: me@example.com, you@example.com", "more than one mailbox"},
		{"empty Sender", "From: me@example.com\nSender:", "Sender field has an empty place"},
		{"group in Resent-From", "From: me@example.com\nResent-From: a:;", "Resent-From field uses group"},
	} {
		_, err := judge(t, c.in+"\n\n")
		reply, ok := ReplyFor(err)
		if !ok || reply.Code != 550 || reply.Enhanced != "5.6.0" || !strings.Contains(reply.Text, c.reason) {
			t.Errorf("%s: %v, want 550 5.6.0 with %q", c.name, err, c.reason)
		}
	}
}

func TestJudgeAuthorsFields(t *testing.T) {
	a, err := judge(t, "Resent-From: r1@example.com, r2@example.com\nResent-Sender: r3@example.com\nResent-From: r4@example.com\n"+
		"From: a@example.com, \"x@example.net\" <b@example.com>\nSender: S <s@example.com>\n\n")
	if err != nil {
		t.Fatal(err)
	}
	var all []Address
	for address := range a.All() {
		all = append(all, address)
	}
	const want = "a@example.com b@example.com r1@example.com r2@example.com r4@example.com r3@example.com x@example.net s@example.com"
	if got := addresses(all); got != want {
		t.Errorf("All yields %q, want %q", got, want)
	}
	if a.Missing() || a.Sender == nil || a.Sender.Local != "s" {
		t.Errorf("sender is %v", a.Sender)
	}
	for range a.All() { // stopping early must not go on
		break
	}
}

func TestJudgeAuthorsMissing(t *testing.T) {
	a, err := judge(t, "Subject: no author\n\n")
	if err != nil || !a.Missing() || a.Sender != nil {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestRewriteAuthor(t *testing.T) {
	to := Address{"relay", "example.com"}
	for _, c := range []struct{ name, in, want string }{
		{"name kept", "A: 1\nFrom: Ann <ann@example.net>\nB: 2\n",
			"A: 1\nFrom: Ann <relay@example.com>\nB: 2\nReply-To: Ann <ann@example.net>\n"},
		{"plain", "From: ann@example.net\n", "From: <relay@example.com>\nReply-To: ann@example.net\n"},
		{"name that shows the address", `From: "ann@example.net" <ann@example.net>` + "\n",
			"From: <relay@example.com>\nReply-To: \"ann@example.net\" <ann@example.net>\n"},
		{"encoded name", "From: =?utf-8?Q?J=C3=BCrgen?= <j@example.net>\n",
			"From: =?utf-8?Q?J=C3=BCrgen?= <relay@example.com>\nReply-To: =?utf-8?Q?J=C3=BCrgen?= <j@example.net>\n"},
		{"comment", "From: root@h.example (Cron Daemon)\n", "From: \"Cron Daemon\" <relay@example.com>\nReply-To: root@h.example (Cron Daemon)\n"},
		{"folded with tab", "From: Ann\n\t<ann@example.net>\n", "From: Ann <relay@example.com>\nReply-To: Ann <ann@example.net>\n"},
		{"several authors", "From: Ann <ann@example.net>, Bob <bob@example.net>\nSender: ann@example.net\n",
			"From: Ann <relay@example.com>\nReply-To: Ann <ann@example.net>, Bob <bob@example.net>\n"},
		{"Reply-To stays", "From: ann@example.net\nReply-To: x@example.org\n", "From: <relay@example.com>\nReply-To: x@example.org\n"},
		{"missing", "Subject: x\n", "Subject: x\nFrom: <relay@example.com>\n"},
	} {
		h := header(t, c.in)
		if err := RewriteAuthor(&h, to); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := strings.ReplaceAll(string(h.Bytes()), "\r\n", "\n"); got != c.want+"\n" {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want+"\n")
		}
		a, err := JudgeAuthors(h)
		if err != nil || !slices.Equal(a.Authors, []Address{to}) || len(a.Named) > 0 || a.Sender != nil {
			t.Errorf("%s: judged as %+v, %v", c.name, a, err)
		}
	}
	h := header(t, "From: none:;\n")
	if err := RewriteAuthor(&h, to); err == nil {
		t.Error("a field that cannot be read was rewritten")
	}
}

// FuzzJudgeAuthors: nothing is accepted that net/mail reads otherwise, and what is accepted holds no
// mailbox that we do not report.
func FuzzJudgeAuthors(f *testing.F) {
	for _, s := range []string{
		"me@example.com", `"a, b" <me@example.com>`, "a@b (c)", "g: a@b;", "a@b, <c@d>", "=?utf-8?Q?a=40b.c?= <d@e>",
		"<@a:b@c>", `"a\"b"@c`, "a <b@c> (d)", "a@b\r\n <c@d>", "<a@[192.0.2.1]>", "\u212a@\u212a", "=?x?q??= <a@b>", `"" <a@b>`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		h, _, err := ReadHeader([]byte("From: " + value + "\r\n\r\n"))
		if err != nil || len(h.Fields) != 1 {
			return
		}
		a, err := JudgeAuthors(h)
		if err != nil {
			if _, ok := ReplyFor(err); !ok {
				t.Fatalf("error without reply: %v", err)
			}
			return
		}
		list, err := (&netmail.AddressParser{WordDecoder: wordDecoder}).ParseList(h.Get("From"))
		if err != nil || len(list) != len(a.Authors) {
			t.Fatalf("%q: net/mail reads %v, %v; we read %v", value, list, err, a.Authors)
		}
		for i, author := range a.Authors {
			at := strings.LastIndexByte(list[i].Address, '@')
			domain, err := ParseDomain(list[i].Address[at+1:])
			if err != nil || list[i].Address[:at] != author.Local || domain != author.Domain {
				t.Fatalf("%q: net/mail reads %q, we read %q", value, list[i].Address, author)
			}
			if again, err := ParseAddress(author.String()); err != nil || again != author {
				t.Fatalf("%q: author %#v does not survive", value, author)
			}
		}
		if strings.Count(value, "@") < len(a.Authors) {
			t.Fatalf("%q has more authors than at signs: %v", value, a.Authors)
		}
		if err := RewriteAuthor(&h, Address{"r", "example.com"}); err != nil {
			t.Fatalf("%q cannot be rewritten: %v", value, err)
		}
		if rewritten, err := JudgeAuthors(h); err != nil || len(rewritten.Authors) != 1 || rewritten.Authors[0].Local != "r" {
			t.Fatalf("%q rewritten to %q: %v, %v", value, h.Bytes(), rewritten, err)
		}
	})
}

// processorTime is what this process has used so far. What else the machine does is not in it.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestJudgeAuthorsCost: the work grows no faster than the field, whatever it is made of.
func TestJudgeAuthorsCost(t *testing.T) {
	const size = 64 << 10
	for _, piece := range []string{
		"a@b.c,", `"a"@b.c,`, `"`, `""`, `"a" `, "(", "(a)", "<", ">", "=?", "=?utf-8?Q?a?= ", "=?utf-8?Q?", "=?a?b?", "@", "a@b.c ", "a.", ":", ";", `\`,
		`"\`, " ", "\t", "ü", "\u202e", "a ", "a=", "=?x?q?a?=", "=?utf-8?b?YQ==?= ",
	} {
		for _, frame := range []string{"%", "%<a@b.c>", `"%" <a@b.c>`, "<%>", "a@b.c (%)", "a@b.c,%"} {
			value := strings.Replace(frame, "%", strings.Repeat(piece, size/len(piece)), 1)
			h := Header{Fields: []Field{{Name: "From", Raw: []byte("From: " + value + "\r\n")}}}
			before := processorTime(t)
			JudgeAuthors(h)
			if took := processorTime(t) - before; took > time.Second {
				t.Errorf("%q in %q: %v of processor time", piece, frame, took)
			}
		}
	}
}
