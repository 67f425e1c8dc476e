package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"

	"postern/internal/testkit"
	"postern/mail"
)

var update = flag.Bool("update", false, "write the goldens anew")

// The keys in testdata sign nothing but tests.
func key(t testing.TB, name, selector string) Key {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ParseKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return Key{Domain: "example.com", Selector: selector, Signer: signer}
}

func bothKeys(t testing.TB) []Key {
	return []Key{key(t, "rsa", "r202611"), key(t, "ed25519", "e202611")}
}

func zone(t testing.TB, keys []Key) map[string]string {
	t.Helper()
	txt := make(map[string]string)
	for _, k := range keys {
		record, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		txt[k.RecordName()] = record
	}
	return txt
}

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

const message = "Received: from client by relay.example.com\r\n" +
	"From: Ann Other <ann@example.com>\r\n" +
	"To: bob@example.net,\r\n\tCarl   <carl@example.net>\r\n" +
	"Subject:  Two   words \r\n" +
	"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n" +
	"Message-ID: <1@example.com>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n" +
	"List-Id: <list.example.com>\r\n" +
	"List-Unsubscribe: <https://example.com/u>\r\n" +
	"X-Mailer: test\r\n" +
	"\r\n" +
	"Hello  Bob, \t\r\n\r\n\ttab and  spaces grüße\r\n \r\n.\r\n\r\n\r\n"

func signed1(t testing.TB, s string, keys []Key, o Options) []byte {
	t.Helper()
	fields, err := Sign(mail.BytesContent(s), keys, time.Now(), o)
	if err != nil {
		t.Fatal(err)
	}
	return append(fields, s...)
}

// verify returns what go-msgauth says of each signature.
func verify(t testing.TB, message []byte, txt map[string]string) []error {
	t.Helper()
	results, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return []string{txt[name]}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	for _, r := range results {
		errs = append(errs, r.Err)
	}
	return errs
}

func verifies(t testing.TB, message []byte, txt map[string]string) bool {
	errs := verify(t, message, txt)
	return len(errs) > 0 && errors.Join(errs...) == nil
}

// TestGolden pins the octets: both kinds of signatures are deterministic.
func TestGolden(t *testing.T) {
	got, err := Sign(mail.BytesContent(message), bothKeys(t), now, Options{Expire: 5 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "signature.golden")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestVerifiesWithMsgauth(t *testing.T) {
	keys := bothKeys(t)
	if errs := verify(t, signed1(t, message, keys, Options{Expire: time.Hour}), zone(t, keys)); len(errs) != 2 ||
		errors.Join(errs...) != nil {
		t.Errorf("signatures: %v", errs)
	}
}

// awkward is messages whose canonical form is easy to get wrong.
var awkward = map[string]string{
	"usual":            message,
	"no body":          "From: a@example.com\r\n\r\n",
	"no blank line":    "From: a@example.com\r\n",
	"one line end":     "From: a@example.com\r\n\r\n\r\n",
	"empty lines":      "From: a@example.com\r\n\r\n\r\n\r\n\r\n",
	"white space only": "From: a@example.com\r\n\r\n \t \r\n\t\r\n",
	"white space last": "From: a@example.com\r\n\r\ntext\r\n \t \r\n\t\r\n",
	"leading lines":    "From: a@example.com\r\n\r\n\r\n\r\ntext\r\n",
	"leading spaces":   "From: a@example.com\r\n\r\n  two\r\n one\r\n\ttab\r\n",
	"dots":             "From: a@example.com\r\n\r\n.\r\n..\r\n",
	"folded From":      "From:\r\n Ann\r\n\t<a@example.com>\r\n\r\nx\r\n",
	"several of a kind": "List-Id: 1\r\nSubject: x\r\nFrom: a@example.com\r\nSubject: y\r\nTo: b\r\nList-Id: " +
		"2\r\n\r\nx\r\n",
	"empty fields": "From: a@example.com\r\nSubject:\r\nTo: \r\n\r\nx\r\n",
	"odd case":     "FROM: a@example.com\r\nsubJECT: X\r\nmime-version:1.0\r\n\r\nx\r\n",
}

// pythonVerify verifies every signature of every message given as JSON, with Debian's python3-dkim.
const pythonVerify = `
import base64, dkim, json, sys
job = json.load(sys.stdin)
def txt(name, timeout=5):
    return job["txt"].get(name.decode().rstrip(".")).encode()
for name, message in job["messages"].items():
    d = dkim.DKIM(base64.b64decode(message))
    count = sum(1 for field, _ in d.headers if field.lower() == b"dkim-signature")
    for i in range(count):
        try:
            print(name, i, d.verify(idx=i, dnsfunc=txt))
        except Exception as e:
            print(name, i, repr(e))
`

// pythonSays has Debian's python3-dkim, the second and independent verifier, verify messages: one process, one line for
// each signature.
func pythonSays(t *testing.T, messages map[string][]byte, txt map[string]string) string {
	t.Helper()
	python := testkit.Need(t, "python3-dkim")
	job, err := json.Marshal(map[string]any{"txt": txt, "messages": messages})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", pythonVerify)
	cmd.Stdin = bytes.NewReader(job)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestVerifiesWithPython(t *testing.T) {
	keys := bothKeys(t)
	messages := make(map[string][]byte)
	for name, m := range awkward {
		messages[strings.ReplaceAll(name, " ", "-")] = signed1(t, m, keys, Options{Expire: time.Hour})
	}
	out := pythonSays(t, messages, zone(t, keys))
	if got := strings.Count(out, " True\n"); got != 2*len(messages) || strings.Count(out, "\n") != got {
		t.Errorf("of %d signatures %d verify:\n%s", 2*len(messages), got, out)
	}
}

func TestAwkwardMessages(t *testing.T) {
	keys := bothKeys(t)
	for name, m := range awkward {
		if errs := verify(t, signed1(t, withBlankLine(m), keys, Options{}), zone(t, keys)); len(errs) != 2 ||
			errors.Join(errs...) != nil {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

// withBlankLine: go-msgauth cannot read a message without.
func withBlankLine(m string) string {
	if !strings.Contains(m, "\r\n\r\n") {
		m += "\r\n"
	}
	return m
}

// TestChangesBreak: what is covered cannot be changed, added or removed; what is not covered can.
func TestChangesBreak(t *testing.T) {
	keys := bothKeys(t)
	txt := zone(t, keys)
	good := string(signed1(t, message, keys, Options{}))
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, c := range []struct {
		name, message string
		want          bool
	}{
		{"nothing", good, true},
		{"white space in a field", replace("Two   words ", "Two words"), true},
		{"field folded anew", replace("Two   words", "Two\r\n words"), true},
		{"white space in the body", replace("Hello  Bob, \t", "Hello Bob,"), true},
		{"empty lines at the end", good + "\r\n", true},
		{"Received on top", "Received: y\r\n" + good, true},
		{"other field changed", replace("X-Mailer: test", "X-Mailer: text"), true},
		{"other field added", replace("X-Mailer", "X-Other: 1\r\nX-Mailer"), true},
		{"Subject changed", replace("Two", "Too"), false},
		{"body changed", replace("Hello", "Hallo"), false},
		{"body appended", good + "more\r\n", false},
		{"line joined", replace("Bob, \t\r\n", "Bob, "), false},
		{"List-Id removed", replace("List-Id: <list.example.com>\r\n", ""), false},
	} {
		if got := verifies(t, []byte(c.message), txt); got != c.want {
			t.Errorf("%s: verifies = %v", c.name, got)
		}
	}
	for _, name := range oversigned {
		if verifies(t, []byte(name+": x@example.com\r\n"+good), txt) ||
			verifies(t, []byte(replace("X-Mailer", name+": x@example.com\r\nX-Mailer")), txt) {
			t.Errorf("a %s field can be added", name)
		}
	}
}

func TestCoveredFields(t *testing.T) {
	m := strings.Replace(message, "X-Mailer",
		"Bcc: secret@example.com\r\nReturn-Path: <x@example.com>\r\nDKIM-Signature: v=1\r\nX-Mailer", 1)
	d, err := Hash(mail.BytesContent(m), Options{Unsigned: []string{"date", "Message-ID", "from"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "From:From:To:To:Cc:Subject:Subject:Reply-To:Sender:In-Reply-To:References:" +
		"MIME-Version:MIME-Version:Content-Type:Content-Type:" +
		"Content-Transfer-Encoding:Content-Transfer-Encoding:List-Unsubscribe:List-Id"
	if got := strings.Join(d.names, ":"); got != want {
		t.Errorf("h=%s\nwant %s", got, want)
	}
}

func TestSignatureForm(t *testing.T) {
	keys := bothKeys(t)
	long := Key{Domain: strings.Repeat("long-label.", 20) + "example", Selector: "s", Signer: keys[0].Signer}
	fields, err := Sign(mail.BytesContent(message), append(keys, long), now, Options{Expire: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	h, body, err := mail.ReadHeader(fields)
	if err != nil || body != len(fields) || h.Count("DKIM-Signature") != 3 {
		t.Fatalf("%d fields, %v", len(h.Fields), err)
	}
	for line := range strings.SplitSeq(string(fields), "\r\n") {
		if len(line) > 78 && !strings.Contains(line, "long-label") {
			t.Errorf("line of %d octets: %s", len(line), line)
		}
	}
	for _, want := range []string{"a=rsa-sha256; c=relaxed/relaxed; d=example.com;", "a=ed25519-sha256;",
		"t=1795341600;", "x=1795345200;"} {
		if !bytes.Contains(fields, []byte(want)) {
			t.Errorf("%q is missing in\n%s", want, fields)
		}
	}
	for _, tag := range []string{"l=", "i=", "q=", "z="} {
		if bytes.Contains(fields, []byte(" "+tag)) || bytes.Contains(fields, []byte("\t"+tag)) {
			t.Errorf("%q is there:\n%s", tag, fields)
		}
	}
	fields, err = Sign(mail.BytesContent(message), keys[:1], now, Options{})
	if err != nil || bytes.Contains(fields, []byte("x=")) {
		t.Errorf("without Expire: %s, %v", fields, err)
	}
}

func TestNothingToSign(t *testing.T) {
	if fields, err := Sign(mail.BytesContent(message), nil, now, Options{}); fields != nil || err != nil {
		t.Errorf("no keys: %q, %v", fields, err)
	}
	for _, m := range []string{"Subject: x\r\n\r\n", "From: a@b\r\nFrom: c@d\r\n\r\n", "From : a@b\r\n\r\n", ""} {
		if fields, err := Sign(mail.BytesContent(m), bothKeys(t), now, Options{}); err == nil {
			t.Errorf("%q is signed: %q", m, fields)
		}
	}
}

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("token removed")
}

// TestNoPartialSignature: when one key fails there is an error, not the other signature.
func TestNoPartialSignature(t *testing.T) {
	keys := bothKeys(t)
	keys[1].Signer = brokenSigner{keys[1].Signer}
	if fields, err := Sign(mail.BytesContent(message), keys, now, Options{}); err == nil || fields != nil ||
		!strings.Contains(err.Error(), "e202611._domainkey.example.com") {
		t.Errorf("%q, %v", fields, err)
	}
}

// stream is Content that is not in memory, read in pieces of n octets.
type stream struct {
	octets []byte
	n      int
	size   int64
	err    error
}

func (s stream) Size() int64   { return s.size }
func (s stream) Bytes() []byte { return nil }
func (s stream) Open() (io.ReadCloser, error) {
	return io.NopCloser(&streamReader{s.octets, s.n, s.err}), nil
}

type streamReader struct {
	rest []byte
	n    int
	err  error
}

func (r *streamReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p[:min(len(p), r.n)], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// pieces is Content in two slices, as a header before a body.
type pieces struct {
	stream
	header, body []byte
}

func (p pieces) Pieces() [][]byte { return [][]byte{p.header, p.body} }

// TestContents: where the octets lie changes nothing.
func TestContents(t *testing.T) {
	long := message + strings.Repeat("a line of text  with spaces \r\n", 20000)
	headers := "From: a@example.com\r\n" + strings.Repeat("X-Long: "+strings.Repeat("x", 900)+"\r\n", 250) +
		"\r\nbody\r\n"
	for name, m := range map[string]string{"short": message, "long": long, "long header": headers,
		"header only": "From: a@example.com\r\n"} {
		want, err := Hash(mail.BytesContent(m), Options{})
		if err != nil {
			t.Fatal(err)
		}
		split := len(m)
		if i := strings.Index(m, "\r\n\r\n"); i > 0 {
			split = i + 4
		}
		for kind, c := range map[string]mail.Content{
			"stream":      stream{[]byte(m), 7777, int64(len(m)), io.EOF},
			"slow stream": stream{[]byte(m), 1, int64(len(m)), io.EOF},
			"pieces":      pieces{stream{[]byte(m), 99, int64(len(m)), io.EOF}, []byte(m[:split]), []byte(m[split:])},
			"odd pieces":  pieces{stream{[]byte(m), 99, int64(len(m)), io.EOF}, []byte(m[:4]), []byte(m[4:])},
		} {
			got, err := Hash(c, Options{})
			if err != nil || got.body != want.body || !bytes.Equal(got.fields, want.fields) {
				t.Errorf("%s as %s: other digest, %v", name, kind, err)
			}
		}
	}
}

// TestCutContent: a message that cannot be read whole is never signed.
func TestCutContent(t *testing.T) {
	for name, c := range map[string]mail.Content{
		"shorter than its size": stream{[]byte(message), 100, int64(len(message)) + 1, io.EOF},
		"unexpected end":        stream{[]byte(message), 100, int64(len(message)) + 1, io.ErrUnexpectedEOF},
		"read error":            stream{[]byte(message), 100, int64(len(message)), errors.New("bad sector")},
		"endless header":        stream{bytes.Repeat([]byte("A: b\r\n"), 200000), 1 << 20, 1200000, io.EOF},
	} {
		if _, err := Hash(c, Options{}); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestEd25519IsOverTheHash(t *testing.T) {
	k := key(t, "ed25519", "s")
	d, err := Hash(mail.BytesContent(message), Options{})
	if err != nil {
		t.Fatal(err)
	}
	probe := &probeSigner{Signer: k.Signer}
	k.Signer = probe
	if _, err := d.Sign([]Key{k}, now); err != nil || probe.length != 32 || probe.opts != crypto.Hash(0) {
		t.Errorf("signed %d octets with %v, %v; RFC 8463 wants the SHA-256", probe.length, probe.opts, err)
	}
}

type probeSigner struct {
	crypto.Signer
	length int
	opts   crypto.SignerOpts
}

func (p *probeSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	p.length, p.opts = len(digest), opts
	return p.Signer.Sign(rand.Reader, digest, opts)
}

// TestSignProperties: whatever the message, both signatures verify with go-msgauth.
func TestSignProperties(t *testing.T) {
	keys := []Key{key(t, "ed25519", "e202611")} // RSA adds nothing here but time
	txt := zone(t, keys)
	rapid.Check(t, func(rt *rapid.T) {
		m := "From: a@example.com\r\n" +
			strings.Join(rapid.SliceOfN(rapid.StringMatching(`(Subject|To|List-Id|X-A|Cc):( |\t|\r\n[ `+
				`\t]x|[a-z@,]){0,12}\r\n`), 0, 6).Draw(rt, "fields"), "") +
			"\r\n" + rapid.StringMatching(`([ab.]|[ \t]|\r\n){0,40}`).Draw(rt, "body") + "\r\n"
		if !verifies(t, signed1(t, m, keys, Options{}), txt) {
			rt.Fatalf("does not verify: %q", m)
		}
	})
}

func TestVerifiesOnlyWithItsKey(t *testing.T) {
	keys := bothKeys(t)
	txt := zone(t, keys)
	other, _, err := Generate(Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	record, _ := Key{Domain: "example.com", Selector: "x", Signer: other}.Record()
	txt[keys[1].RecordName()] = record
	errs := verify(t, signed1(t, message, keys, Options{}), txt)
	if len(errs) != 2 || errs[0] != nil || errs[1] == nil {
		t.Errorf("signatures: %v", errs)
	}
	if _, ok := other.(ed25519.PrivateKey); !ok {
		t.Errorf("generated %T", other)
	}
}
