package mail

import (
	"fmt"
	"io"
	"mime"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit/cputime"
)

// judge reads and rewrites a header, and proves that what is left reads the same and stays as it is.
func judge(t testing.TB, s string) (Authorship, error) {
	t.Helper()
	h := header(t, s)
	a, err := CanonicalAuthors(&h)
	if err == nil {
		provenCanonical(t, h, a)
	}
	return a, err
}

func provenCanonical(t testing.TB, h Header, a Authorship) {
	t.Helper()
	before := string(h.Bytes())
	read, _, err := ReadHeader(h.Bytes())
	if err != nil {
		t.Fatalf("%q cannot be read: %v", before, err)
	}
	again, err := CanonicalAuthors(&read)
	if err != nil || len(again.Changes) > 0 || string(read.Bytes()) != before {
		t.Fatalf("%q is not canonical: %v, %q", before, err, again.Changes)
	}
	got := fmt.Sprintf("%q %v %q", again.Authors, again.Sender, again.Resent)
	if want := fmt.Sprintf("%q %v %q", a.Authors, a.Sender, a.Resent); got != want {
		t.Fatalf("%q reads %s, judged was %s", before, got, want)
	}
	for _, named := range again.Named {
		if !slices.Contains(a.Named, named) {
			t.Fatalf("%q shows %s, which was not judged", before, named)
		}
	}
	for line := range strings.SplitSeq(before, "\r\n") {
		if len(line) > MaxLine {
			t.Fatalf("a line of %d octets in %q", len(line), before)
		}
	}
}

func addresses(list []Address) string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

func TestCanonicalAuthorsAccepts(t *testing.T) {
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
		{"encoded in JIS with 0x40 octets", "From: =?iso-2022-jp?B?GyRCO1tAPBsoQg==?= <me@example.com>",
			"me@example.com", ""},
		{"encoded in Shift JIS with 0x40", "From: =?shift_jis?B?g0CDQA==?= <me@example.com>", "me@example.com", ""},
		{"raw UTF-8", "From: Jürgen Müller <me@example.com>", "me@example.com", ""},
		{"raw UTF-8 quoted", "From: \"Müller, Jürgen\" <me@example.com>", "me@example.com", ""},
		{"right-to-left mark", "From: \"שלום\u200f\" <me@example.com>", "me@example.com", ""},
		{"emoji", "From: Ann 👩\u200d🔧 <me@example.com>", "me@example.com", ""},
		{"UTF-8 address", "From: <jürgen@bücher.example>", "jürgen@bücher.example", ""},
		{"literal", `From: me@[192.0.2.1]`, `me@[192.0.2.1]`, ""},
		{"cron", "From: root@host.example.com (Cron Daemon)", "root@host.example.com", ""},
		{"list", `From: a@example.com, "B, b" <b@example.org>,c@example.net`,
			"a@example.com b@example.org c@example.net", ""},
		{"own address as name", `From: "Me@Example.com" <me@example.com>`, "me@example.com", ""},
		{"own address in single quotes", `From: "'me@example.com'" <me@example.com>`, "me@example.com", ""},
		{"own address encoded", `From: =?utf-8?Q?me=40example.com?= <me@example.com>`, "me@example.com", ""},
		{"at sign that is no address", `From: "Ann @ Home, Bob@Acme" <me@example.com>`, "me@example.com", ""},
		{"other address as name", `From: "ceo@example.net" <me@example.com>`, "me@example.com", "ceo@example.net"},
		{"other address in a name", `From: "the boss, ceo@example.net (via us)" <me@example.com>`, "me@example.com",
			"ceo@example.net"},
		{"other address in curly quotes", "From: \"“ceo@example.net”\" <me@example.com>", "me@example.com",
			"ceo@example.net"},
		{"wide at sign", "From: \"ceo＠example.net\" <me@example.com>", "me@example.com", "ceo@example.net"},
		{"angles in quotes", `From: "<ceo@example.net>" <me@example.com>`, "me@example.com", "ceo@example.net"},
		{"quotes without need", `From: "me"@example.com`, "me@example.com", ""},
		{"two dots", `From: Ann <a..b@example.com>`, `"a..b"@example.com`, ""},
		{"leading dot", `From: .a@example.com`, `".a"@example.com`, ""},
		{"trailing dot in quotes", `From: <"a."@example.com>`, `"a."@example.com`, ""},
		{"comment first", "From: (Ann) me@example.com", "me@example.com", ""},
		{"comment nested", "From: me@example.com (a (b))", "me@example.com", ""},
		{"comment with quoted pair", `From: me@example.com (a \) b)`, "me@example.com", ""},
		{"comment in the name", "From: Ann (x) <me@example.com>", "me@example.com", ""},
		{"comment behind angles", "From: Ann <me@example.com> (x)", "me@example.com", ""},
		{"comment behind angles, no name", "From: <me@example.com> (NAS)", "me@example.com", ""},
		{"comment with an address", "From: me@example.com (you@example.net)", "me@example.com", "you@example.net"},
		{"comment hides angle", "From: me@example.com (<you@example.net>)", "me@example.com", "you@example.net"},
		{"own address as name, no quotes", "From: me@example.com <me@example.com>", "me@example.com", ""},
		{"other address as name, no quotes", "From: you@example.net <me@example.com>", "me@example.com",
			"you@example.net"},
		{"brackets in the name", "From: [A1] Scanner <me@example.com>", "me@example.com", ""},
		{"backslash in the name", `From: DOMAIN\ann <me@example.com>`, "me@example.com", ""},
		{"comma in the name", "From: Other, Ann <me@example.com>", "me@example.com", ""},
		{"commas in names", "From: Other, Ann <me@example.com>, Doe, Jr., Jim <you@example.com>",
			"me@example.com you@example.com", ""},
		{"space in angles", "From: Ann < me@example.com >", "me@example.com", ""},
		{"raw Latin-1", "From: J\xfcrgen <me@example.com>", "me@example.com", ""},
		{"raw Latin-1 in quotes", "From: \"M\xfcller, J\xfcrgen\" <me@example.com>", "me@example.com", ""},
		{"character split over two words", "From: =?utf-8?Q?J=C3?= =?utf-8?Q?=BCrgen?= <me@example.com>",
			"me@example.com", ""},
		{"encoded words without blanks", "From: =?utf-8?Q?J?==?utf-8?Q?=C3=BCrgen?= <me@example.com>", "me@example.com",
			""},
		{"comment in angles", "From: root <me@example.com (fcron)>", "me@example.com", ""},
		{"comment in angles with an address", "From: <me@example.com (you@example.net)>", "me@example.com", ""},
		{"colon in the name", "From: HP LaserJet: 3rd floor <me@example.com>", "me@example.com", ""},
		{"colons in brackets", "From: TASKalfa 3253ci [00:c0:ee:12:34:56] <me@example.com>", "me@example.com", ""},
		{"entity in the name", "From: Steve&#039;s Floral <me@example.com>", "me@example.com", ""},
		{"trailing comma", "From: me@example.com,", "me@example.com", ""},
		{"empty places", "From: ,me@example.com,, you@example.com ,", "me@example.com you@example.com", ""},
		{"encoded with raw specials", "From: =?iso-8859-1?Q?M=FCller,J=FCrgen?= <me@example.com>", "me@example.com",
			""},
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

func TestCanonicalAuthorsRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, reason string }{
		{"two From fields", "From: me@example.com\nfrom: you@example.net", "occurs 2 times"},
		{"commas only", "From: , ,", "empty entry"},
		{"name only", "From: Ann Other", "malformed"},
		{"local only", "From: root", "malformed"},
		{"group", "From: friends: me@example.com;", "group"},
		{"empty group", "From: undisclosed-recipients:;", "group"},
		{"group with names", "From: friends: Ann <me@example.com>, Bob <you@example.com>;", "group"},
		{"empty group before", "From: none:;, me@example.com", "group"},
		{"semicolon", "From: me@example.com; you@example.com", "group"},
		{"comment without end", "From: me@example.com (Ann", "comment"},
		{"comment as address", "From: (me@example.com)", "empty entry"},
		{"name without an address in a list", "From: Ann, me@example.com", "malformed"},
		{"two commas", "From: Other,, Ann <me@example.com>", "malformed"},
		{"Latin-1 address", "From: j\xfcrgen@example.com", "UTF-8"},
		{"quoted at sign", `From: "ceo@example.net"@example.com`, "quoted part"},
		{"quoted at sign and blank", `From: "ceo@example.net x"@example.com`, "quoted part"},
		{"quoted blank", `From: "a b"@example.com`, "quoted part"},
		{"quoted specials", `From: Ann <"a,b<c"@example.com>`, "quoted part"},
		{"encoded word as local part", "From: =?utf-8?q?ceo=40example.net?=@example.com", "quoted part"},
		{"encoded word as local part, quoted", `From: <"=?utf-8?q?ceo=40example.net=2C?="@example.com>`, "quoted part"},
		{"wide at sign in a local part", "From: <ceo\uff20example.net@example.com>", "quoted part"},
		{"encoded word of an encoded word", "From: =?utf-8?Q?=3D=3Futf-8=3FQ=3Fceo=3F=3D?= <me@example.com>",
			"cannot be read"},
		{"route", "From: <@a.example,@b.example:me@example.com>", "source route"},
		{"comment inside", "From: me@(x)example.com", "comment"},
		{"two addresses in one", "From: <you@example.net><me@example.com>", ""},
		{"nested angles", "From: <<me@example.com>>", ""},
		{"text behind", "From: <me@example.com> x", "after <address>"},
		{"address behind", "From: <me@example.com> you@example.net", "after <address>"},
		{"folded address", "From: me@exam\n ple.com", "malformed"},
		{"space around at", "From: me @ example.com", "malformed"},
		{"two ats", "From: me@example.com@evil.example", "malformed"},
		{"trailing dot", "From: me@example.com.", "malformed"},
		{"open quote", `From: "Ann <me@example.com>`, "quoted string"},
		{"quote behind a backslash", `From: "Ann\" <me@example.com>`, "quoted string"},
		{"direction override", "From: \"\u202emoc.elpmaxe\" <me@example.com>", "direction"},
		{"direction override encoded", "From: =?utf-8?Q?=E2=80=AEabc?= <me@example.com>", "direction"},
		{"C1 control", "From: \"a\u0085b\" <me@example.com>", "control"},
		{"encoded control", "From: =?utf-8?Q?a=0D=0Ab?= <me@example.com>", "control"},
		{"encoded NUL", "From: =?utf-8?Q?a=00b?= <me@example.com>", "control"},
		{"encoded in UTF-16", "From: =?utf-16be?B?AGMAZQBv?= <me@example.com>", "charset"},
		{"encoded in UTF-7", "From: =?utf-7?Q?ceo+AEA-example.net?= <me@example.com>", "charset"},
		{"encoded in EBCDIC", "From: =?cp037?B?g4WWfIKBlZJLhaeBlJeTha==?= <me@example.com>", "charset"},
		{"encoded word broken", "From: =?utf-8?B?!!!?= <me@example.com>", "encoded word"},
		{"encoded address", "From: =?utf-8?Q?me=40example.com?=", "malformed"},
		{"two Senders", "From: me@example.com\nSender: me@example.com\nSender: me@example.com",
			"Sender field occurs 2 times"},
		{"name without an address", "From: Ann <>, me@example.com", "without an address"},
		{"group and a mailbox behind", "From: none:; Ann <me@example.com>", "group"},
		{"semicolon between mailboxes", "From: you@example.com; Ann <me@example.com>", "group"},
		{"colon behind an address", "From: you@example.net: <me@example.com>", "group"},
		{"closing parenthesis", "From: Ann :) <me@example.com>", "comment"},
		{"comment between address and bracket, quoted", `From: Ann <"me (x)"@example.com (y)>`, "comment"},
		{"comment in angles only", "From: Ann <(me@example.com)>", "comment"},
		{"Sender of two", "From: me@example.com\nSender: me@example.com, you@example.com", "more than one mailbox"},
		{"group in Resent-From", "From: me@example.com\nResent-From: a:;", "Resent-From field uses group"},
	} {
		_, err := judge(t, c.in+"\n\n")
		reply, ok := ReplyFor(err)
		if !ok || reply.Code != 550 || reply.Enhanced != "5.6.0" || !strings.Contains(reply.Text, c.reason) {
			t.Errorf("%s: %v, want 550 5.6.0 with %q", c.name, err, c.reason)
		}
	}
}

func TestCanonicalAuthorsFields(t *testing.T) {
	a, err := judge(t, "Resent-From: r1@example.com, r2@example.com\nResent-Sender: r3@example.com\nResent-From: "+
		"r4@example.com\n"+
		"From: a@example.com, \"x@example.net\" <b@example.com>\nSender: S <s@example.com>\n\n")
	if err != nil {
		t.Fatal(err)
	}
	var all []Address
	for address := range a.All() {
		all = append(all, address)
	}
	const want = "a@example.com b@example.com r1@example.com r2@example.com r4@example.com r3@example.com " +
		"x@example.net s@example.com"
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

func TestCanonicalAuthorsMissing(t *testing.T) {
	a, err := judge(t, "Subject: no author\n\n")
	if err != nil || !a.Missing() || a.Sender != nil {
		t.Errorf("%+v, %v", a, err)
	}
	for _, in := range []string{"From: Lorem Ipsum <>\nSender: root <>", "From: <> (Lorem Ipsum)",
		"From: \"Lorem Ipsum\" < >"} {
		h := header(t, in+"\n\n")
		a, err := CanonicalAuthors(&h)
		if err != nil || !a.Missing() || a.Sender != nil || a.Nobody != "Lorem Ipsum" || len(h.Fields) > 0 {
			t.Errorf("%s: %+v, %v, and %q is left", in, a, err, h.Bytes())
		}
	}
}

// TestAuthorRefusalNamesTheLine: number and beginning, as it came.
func TestAuthorRefusalNamesTheLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"To: x\n y\nFrom: root (Cron Daemon)\n",
			`line 3 ("From: root (Cron Daemon)"): the From field has a malformed address; `},
		{"From: a@b\nFROM:\n c@d\n", `line 2 ("FROM:"): the From field occurs 2 times `},
		{"From: a@b\nSender: a@b, c@d\n", `line 2 ("Sender: a@b, c@d"): the Sender field names more than one mailbox`},
		{"From: a@b\nX: y\nResent-From: x\n",
			`line 3 ("Resent-From: x"): the Resent-From field has a malformed address; `},
		// a line went, and its number
		{"From x Mon Jan  1 00:00:00 2026\nFrom: root\n", "the From field has a malformed address; "},
	} {
		_, err := judge(t, c.in+"\n")
		if reply, ok := ReplyFor(err); !ok || !strings.HasPrefix(reply.Text, c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
	}
}

func TestRewriteAuthor(t *testing.T) {
	to := Address{"relay", "example.com"}
	for _, c := range []struct{ name, in, want string }{
		{"name kept", "A: 1\nFrom: Ann <ann@example.net>\nB: 2\n",
			"A: 1\nFrom: Ann <relay@example.com>\nB: 2\nReply-To: Ann <ann@example.net>\n"},
		{"plain", "From: ann@example.net\n", "From: <relay@example.com>\nReply-To: <ann@example.net>\n"},
		{"name that shows the address", `From: "ann@example.net" <ann@example.net>` + "\n",
			"From: <relay@example.com>\nReply-To: \"ann@example.net\" <ann@example.net>\n"},
		{"name that shows another address", `From: "ceo@example.org" <ann@example.net>` + "\n",
			"From: <relay@example.com>\nReply-To: <ann@example.net>\n"},
		{"encoded name", "From: =?utf-8?Q?J=C3=BCrgen?= <j@example.net>\n",
			"From: =?utf-8?q?J=C3=BCrgen?= <relay@example.com>\nReply-To: =?utf-8?q?J=C3=BCrgen?= <j@example.net>\n"},
		{"Latin-1 name", "From: J\xfcrgen <j@example.net>\n",
			"From: =?utf-8?q?J=C3=BCrgen?= <relay@example.com>\nReply-To: =?utf-8?q?J=C3=BCrgen?= <j@example.net>\n"},
		{"comment", "From: root@h.example (Cron Daemon)\n",
			"From: Cron Daemon <relay@example.com>\nReply-To: Cron Daemon <root@h.example>\n"},
		{"folded with tab", "From: Ann\n\t<ann@example.net>\n",
			"From: Ann <relay@example.com>\nReply-To: Ann <ann@example.net>\n"},
		{"several authors", "From: Ann <ann@example.net>, Bob <bob@example.net>\nSender: ann@example.net\n",
			"From: Ann <relay@example.com>\nReply-To: Ann <ann@example.net>, Bob <bob@example.net>\n"},
		{"Reply-To stays", "From: ann@example.net\nReply-To: x@example.org\n",
			"From: <relay@example.com>\nReply-To: x@example.org\n"},
		{"missing", "Subject: x\n", "Subject: x\nFrom: <relay@example.com>\n"},
		{"missing, with Sender", "Sender: a@b\nSubject: x\n", "Subject: x\nFrom: <relay@example.com>\n"},
		{"no address", "From: root (Cron Daemon)\n", "From: Cron Daemon <relay@example.com>\n"},
		{"local part", "From: root\n", "From: <relay@example.com>\n"},
		{"local part in angles", "From: <scanner> (NAS)\n", "From: NAS <relay@example.com>\n"},
		{"name before a local part", "From: \"The MFP\" <scanner>\n", "From: The MFP <relay@example.com>\n"},
		{"brackets", "From: [A1] Scanner <scanner@nas>\n",
			"From: \"[A1] Scanner\" <relay@example.com>\nReply-To: \"[A1] Scanner\" <scanner@nas>\n"},
		{"empty", "From:\n", "From: <relay@example.com>\n"},
		{"null path", "From: <>\n", "From: <relay@example.com>\n"},
		{"two From fields", "From: Ann <ann@example.net>\nX: y\nFrom: bob@example.net\n",
			"From: Ann <relay@example.com>\nX: y\nReply-To: Ann <ann@example.net>\n"},
		{"group", "From: none:;\n", "From: <relay@example.com>\n"},
		{"open quote", "From: \"ceo@example.org <ann@example.net>\n", "From: <relay@example.com>\n"},
		{"unknown charset", "From: =?cp037?B?g4WWfIKBlZJLhaeBlJeTha==?= <a@example.net>\n",
			"From: <relay@example.com>\n"},
		{"direction override", "From: \u202eAnn <ann@example.net>\n", "From: <relay@example.com>\n"},
		{"route", "From: Ann <@a.example:ann@example.net>\n", "From: Ann <relay@example.com>\n"},
		{"all of it encoded", "From: =?utf-8?Q?J=C3=BCrgen_<j=40example.net>?=\n",
			"From: =?utf-8?q?J=C3=BCrgen?= <relay@example.com>\n"},
		{"it is the author already", "From: Ann <relay@example.com>\nSender: a@b\n", "From: Ann <relay@example.com>\n"},
		{"it is one of the authors", "From: <relay@example.com>, <ann@example.net>\n",
			"From: <relay@example.com>\nReply-To: <ann@example.net>\n"},
		{"nobody", "From: Lorem Ipsum <>\n", "From: Lorem Ipsum <relay@example.com>\n"},
		{"colon", "From: Scan: 3rd <scanner>\n", "From: \"Scan: 3rd\" <relay@example.com>\n"},
	} {
		h := header(t, c.in)
		RewriteAuthor(&h, to)
		if got := strings.ReplaceAll(string(h.Bytes()), "\r\n", "\n"); got != c.want+"\n" {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want+"\n")
		}
		a, err := CanonicalAuthors(&h)
		if err != nil || !slices.Equal(a.Authors, []Address{to}) || len(a.Named) > 0 || a.Sender != nil ||
			len(a.Changes) > 0 {
			t.Errorf("%s: judged as %+v, %v", c.name, a, err)
		}
	}
}

// FuzzCanonicalAuthors: what is accepted leaves in a form in which net/mail finds the mailboxes that we judged, and
// which stays as it is. A rewritten author is the only one, whatever was there.
func FuzzCanonicalAuthors(f *testing.F) {
	for _, s := range []string{
		"me@example.com", `"a, b" <me@example.com>`, "a@b (c)", "g: a@b;", "a@b, <c@d>", "=?utf-8?Q?a=40b.c?= <d@e>",
		"<@a:b@c>", `"a\"b"@c`, "a <b@c> (d)", "a@b\r\n <c@d>", "<a@[192.0.2.1]>", "\u212a@\u212a", "=?x?q??= <a@b>",
		`"" <a@b>`,
		"\"x\r\n <ceo @evil.com> (\"\r\n <a@b>", "J\xfcrgen, [x] A. <a..b@c>",
		"=?iso-2022-jp?B?GyRCO1tAPBsoQg==?= <a@b>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		h, _, err := ReadHeader([]byte("From: " + value + "\r\n\r\n"))
		if err != nil || len(h.Fields) != 1 {
			return
		}
		original := h
		a, err := CanonicalAuthors(&h)
		if err == nil {
			provenCanonical(t, h, a)
			netmailAgrees(t, h.Get("From"), a.Authors)
		} else if _, ok := ReplyFor(err); !ok {
			t.Fatalf("error without reply: %v", err)
		}
		RewriteAuthor(&original, Address{"r", "example.com"})
		a, err = CanonicalAuthors(&original)
		if err != nil || len(a.Authors) != 1 || a.Authors[0].Local != "r" || len(a.Named) > 0 || len(a.Changes) > 0 {
			t.Fatalf("%q rewritten to %q: %+v, %v", value, original.Bytes(), a, err)
		}
		netmailAgrees(t, original.Get("From"), a.Authors)
	})
}

// netmailAgrees proves that net/mail finds the same mailboxes in the same order.
func netmailAgrees(t *testing.T, value string, want []Address) {
	t.Helper()
	if len(want) == 0 && value == "" {
		return
	}
	list, err := (&netmail.AddressParser{WordDecoder: lenientDecoder}).ParseList(value)
	if err != nil || len(list) != len(want) {
		t.Fatalf("%q: net/mail reads %v, %v; we read %v", value, list, err, want)
	}
	for i, author := range want {
		at := strings.LastIndexByte(list[i].Address, '@')
		domain, err := ParseDomain(list[i].Address[at+1:])
		if err != nil || list[i].Address[:at] != author.Local || domain != author.Domain {
			t.Fatalf("%q: net/mail reads %q, we read %q", value, list[i].Address, author)
		}
		if again, err := parseHeaderAddress(author.String()); err != nil || again != author {
			t.Fatalf("%q: author %#v does not survive", value, author)
		}
	}
}

// lenientDecoder lets net/mail read every charset, as text that has nothing to do with addresses.
var lenientDecoder = &mime.WordDecoder{CharsetReader: func(string, io.Reader) (io.Reader,
	error) {
	return strings.NewReader("x"), nil
}}

// processorTime is what this process has used so far. What else the machine does is not in it.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	used, err := cputime.Used()
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestCanonicalAuthorsCost: the work grows no faster than the field, whatever it is made of.
func TestCanonicalAuthorsCost(t *testing.T) {
	const size = 64 << 10
	for _, piece := range []string{
		"a@b.c,", `"a"@b.c,`, `"`, `""`, `"a" `, "(", "(a)", "<", ">", "=?", "=?utf-8?Q?a?= ", "=?utf-8?Q?", "=?a?b?",
		"@", "a@b.c ", "a.", ":", ";", `\`,
		`"\`, " ", "\t", "ü", "\u202e", "a ", "a=", "=?x?q?a?=", "=?utf-8?b?YQ==?= ",
	} {
		for _, frame := range []string{"%", "%<a@b.c>", `"%" <a@b.c>`, "<%>", "a@b.c (%)", "a@b.c,%"} {
			value := strings.Replace(frame, "%", strings.Repeat(piece, size/len(piece)), 1)
			h := Header{Fields: []Field{{Name: "From", Raw: []byte("From: " + value + "\r\n")}}}
			before := processorTime(t)
			CanonicalAuthors(&h)
			RewriteAuthor(&h, Address{"r", "example.com"})
			if took := processorTime(t) - before; took > time.Second {
				t.Errorf("%q in %q: %v of processor time", piece, frame, took)
			}
		}
	}
}
