package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"mime"
	netmail "net/mail"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/unicode/norm"

	"postern/internal/testkit"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/submission"
)

// readersSenders are the senders of the login whose headers the readers judge.
var readersSenders = []string{"alice@example.com", "*@wild.example", `"a..b"@example.com`}

func readersPolicy(t testing.TB, unlisted string) policy.Effective {
	t.Helper()
	p, err := policy.New(append([]policy.Rule{{Senders: readersSenders, UnlistedSender: unlisted}},
		(&config.Config{}).Rules()...))
	if err != nil {
		t.Fatal(err)
	}
	return p.For(policy.Subject{Login: "alice"})
}

// seen is what one reader sees in the author fields of a header: pairs of name and address.
type seen map[string][][2]string

// TestReadersSeeNobodyElse lets readers of other make judge what leaves of generated headers: whoever they see in the
// author fields is somebody whom the login may be, and so is whoever a display name shows.
func TestReadersSeeNobodyElse(t *testing.T) {
	t.Parallel()
	const generated, least = 10000, 2000
	refusing, rewriting := readersPolicy(t, policy.Refuse), readersPolicy(t, policy.Rewrite)
	g := authorGrammar{rand.New(rand.NewPCG(1, 2))}
	var before, headers []string
	for i := range generated {
		e := &refusing
		if i%10 == 0 {
			e = &rewriting
		}
		text := g.header()
		if leaves, ok := whatLeaves(e, text); ok {
			before, headers = append(before, text), append(headers, leaves)
		}
	}
	if len(headers) < least {
		t.Fatalf("only %d of %d headers are left to judge", len(headers), generated)
	}
	judgeSeen(t, &refusing, before, headers)
}

// whatLeaves is what becomes of a header, without Reply-To, which names whom an answer goes to, not who sends.
func whatLeaves(e *policy.Effective, text string) (header string, ok bool) {
	h, _, err := mail.ReadHeader([]byte(text))
	if err != nil {
		return "", false
	}
	checked, err := submission.CheckAuthors(e, mail.Address{Local: "alice", Domain: "example.com"}, h)
	if err != nil {
		return "", false
	}
	checked.Header.Remove("Reply-To")
	return string(checked.Header.Bytes()), true
}

// TestReadersSeeNobodyElseAtTheProvider sends some of them through the relay.
func TestReadersSeeNobodyElseAtTheProvider(t *testing.T) {
	t.Parallel()
	const generated = 300
	p := newProvider(t)
	r := newRig(t, p, fmt.Sprintf("[[policy]]\nsenders = [%q, %q, %q]\nlimits = []", readersSenders[0],
		readersSenders[1], readersSenders[2]))
	g := authorGrammar{rand.New(rand.NewPCG(3, 4))}
	all := make([]string, generated)
	taken := 0
	c := r.client(rigLogin)
	for i := range all {
		all[i] = g.header()
		_, err := sendOn(c, "alice@example.com", []string{"bob@example.net"},
			fmt.Sprintf("X-Case: %d\n", i)+strings.ReplaceAll(all[i], "\r\n", "\n")+"body\n")
		switch code(err) {
		case 250:
			taken++
		case 550, 554:
			if c.Reset() != nil {
				c = r.client(rigLogin)
			}
		default:
			t.Fatalf("%q: %v", all[i], err)
		}
	}
	if taken < generated/10 {
		t.Fatalf("only %d of %d messages were taken", taken, generated)
	}
	e := readersPolicy(t, policy.Refuse)
	var before, headers []string
	for _, m := range p.wait(taken) {
		header, _, _ := strings.Cut(m.data, "\r\n\r\n")
		_, number, _ := strings.Cut(header, "\r\nX-Case: ")
		number, _, _ = strings.Cut(number, "\r\n")
		i, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("%q: %v", header, err)
		}
		before, headers = append(before, all[i]), append(headers, header+"\r\n\r\n")
	}
	judgeSeen(t, &e, before, headers)
}

// FuzzAuthorHeaders lets net/mail judge generated headers.
func FuzzAuthorHeaders(f *testing.F) {
	e := readersPolicy(f, policy.Refuse)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		text := authorGrammar{rand.New(rand.NewPCG(a, b))}.header()
		if leaves, ok := whatLeaves(&e, text); ok {
			judgeOne(t, &e, text, leaves, readNetMail(t, leaves))
		}
	})
}

// judgeSeen asks all readers.
func judgeSeen(t *testing.T, e *policy.Effective, before, headers []string) {
	t.Helper()
	input, err := json.Marshal(headers)
	if err != nil {
		t.Fatal(err)
	}
	const dir = "testdata/readers/readers"
	for _, reader := range []struct {
		tool string
		argv func(path string) []string
	}{
		{"net/mail", nil},
		{"python3", func(path string) []string { return []string{path, dir + ".py"} }},
		{"libmailtools-perl", func(path string) []string { return []string{path, dir + ".pl"} }},
		{"node-nodemailer", func(path string) []string { return []string{"node", dir + ".js", path} }},
	} {
		t.Run(reader.tool, func(t *testing.T) {
			if reader.argv == nil {
				for i, h := range headers {
					judgeOne(t, e, before[i], h, readNetMail(t, h))
				}
				return
			}
			path := testkit.Need(t, reader.tool)
			if strings.HasSuffix(path, "perl") {
				testkit.Need(t, "libemail-address-xs-perl")
			}
			argv := reader.argv(path)
			cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
			cmd.Stdin = bytes.NewReader(input)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v\n%s", argv, err, &stderr)
			}
			var all []seen
			if err := json.Unmarshal(out, &all); err != nil || len(all) != len(headers) {
				t.Fatalf("%d answers to %d headers: %v", len(all), len(headers), err)
			}
			for i, s := range all {
				judgeOne(t, e, before[i], headers[i], s)
			}
		})
	}
}

// judgeOne fails the test for each stranger that a reader sees, and for a reader that does not see the author. Words
// without an at sign, which a decode-first reader makes of "Last, First", are no addresses.
func judgeOne(t *testing.T, e *policy.Effective, before, header string, s seen) {
	t.Helper()
	if len(s) == 0 {
		t.Errorf("no reader looked at %q", header)
	}
	for reader, boxes := range s {
		found := false
		for _, box := range boxes {
			if strings.Contains(box[1], "@") {
				found = true
				if !mayBe(e, box[1]) {
					t.Errorf("%s sees %q in %q, which was %q", reader, box[1], header, before)
				}
			}
			for _, shown := range shownIn(box[0]) {
				if !mayBe(e, shown) {
					t.Errorf("%s is shown %q in %q, which was %q", reader, shown, header, before)
				}
			}
		}
		// parseaddr reads no lists, and what is decoded first may be no list any more.
		if !found && !strings.HasPrefix(reader, "parseaddr") && !strings.HasSuffix(reader, "decoded first") {
			t.Errorf("%s sees no author in %q, which was %q", reader, header, before)
		}
	}
}

func mayBe(e *policy.Effective, address string) bool {
	at := strings.LastIndexByte(address, '@')
	local := strings.ReplaceAll(strings.Trim(address[:at], `"`), `\`, "")
	domain, err := mail.ParseDomain(address[at+1:])
	return err == nil && !strings.ContainsAny(local, "@<>, ") && e.MaySend(mail.Address{Local: local, Domain: domain})
}

var shownAddress = regexp.MustCompile(`([^\s"'<>()\[\],;:@\\]+)["'\s]*@["'\s]*([\pL\pN\pM_-]+(?:\.[\pL\pN\pM_-]+)+)`)

// shownIn finds addresses in a display name in a way of its own.
func shownIn(name string) []string {
	name = norm.NFKC.String(strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point) {
			return -1
		}
		return r
	}, name))
	name = strings.ReplaceAll(name, "\u3002", ".")
	var found []string
	for _, m := range shownAddress.FindAllStringSubmatch(name, -1) {
		found = append(found, m[1]+"@"+m[2])
	}
	return found
}

func readNetMail(t *testing.T, header string) seen {
	m, err := netmail.ReadMessage(strings.NewReader(header))
	if err != nil {
		t.Fatal(err)
	}
	s := seen{"net/mail": nil}
	parser := netmail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: charset.Reader}}
	for _, name := range []string{"From", "Sender", "Resent-From", "Resent-Sender"} {
		for _, value := range m.Header[name] {
			list, err := parser.ParseList(value)
			if err != nil {
				t.Errorf("net/mail: %q: %v", value, err)
			}
			for _, a := range list {
				s["net/mail"] = append(s["net/mail"], [2]string{a.Name, a.Address})
			}
		}
	}
	return s
}

// What devices put into a header as it is leaves as encoded words: no upstream needs SMTPUTF8 for it.
func TestTextInHeadersIsEncoded(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	r := newRig(t, p, "")
	text := "From: anna@example.com\nTo: J\u00f6rg <bob@example.net>\nSubject: Gr\xfc\xdfe\n\nhello\n"
	if reply, err := r.send(rigLogin, []string{"bob@example.net"}, text); err != nil {
		t.Fatalf("%s: %v", reply, err)
	}
	got := p.wait(1)[0].data
	for _, want := range []string{"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n",
		"To: =?utf-8?b?SsO2cmc=?= <bob@example.net>\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
