package scrub

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"postern/mail"
)

const (
	password = `Tr0ub4dor&3 +"höhle`
	token    = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsIng1dCI6IkhTMjNiN0RvN1RjYVUxUm9MSHdwSXEyNFZZZyJ9." +
		"eyJhdWQiOiJodHRwczovL291dGxvb2sub2ZmaWNlLmNvbSJ9"
)

func TestEchoes(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	basic := b64([]byte("client-id:" + url.QueryEscape(password)))
	plain := b64([]byte("\x00relay@example.com\x00" + password))
	bearer := b64([]byte("user=relay@example.com\x01auth=Bearer " + token + "\x01\x01"))
	s := New(password, token, "")
	for name, echo := range map[string]string{
		"as it is":             password,
		"upper case":           strings.ToUpper(token),
		"LOGIN":                b64([]byte(password)),
		"PLAIN":                plain,
		"PLAIN, cut":           plain[:len(plain)-6],
		"Basic":                basic,
		"XOAUTH2":              bearer,
		"XOAUTH2, lower case":  strings.ToLower(bearer),
		"base64 for addresses": base64.RawURLEncoding.EncodeToString([]byte("x" + token)),
		"form":                 url.Values{"client_secret": {password}}.Encode(),
		"path":                 url.PathEscape(password),
		"hex":                  hex.EncodeToString([]byte(password)),
		"JSON":                 `{"password":"Tr0ub4dor&3 +\"höhle"}`,
		"HTML":                 "Tr0ub4dor&amp;3 +&#34;höhle",
		"its beginning":        token[:40],
		"its end":              token[len(token)-30:],
		"half of the password": password[:12],
	} {
		got := s.Text("5.7.8 no: " + echo + " (id 42)")
		if !strings.Contains(got, Redacted) || !strings.HasPrefix(got, "5.7.8 no: ") ||
			!strings.HasSuffix(got, " (id 42)") {
			t.Errorf("%s: %q", name, got)
		}
		for _, secret := range []string{password, token} {
			for i := 0; i+10 <= len(secret); i++ {
				if strings.Contains(strings.ToLower(got), strings.ToLower(secret[i:i+10])) {
					t.Fatalf("%s: %q has %q", name, got, secret[i:i+10])
				}
			}
		}
	}
}

// What a provider writes its answers with, JSON above all, escapes in ways of its own; whoever reads the answer undoes
// it. Replies of several lines break a secret in two.
func TestEchoesInEscapes(t *testing.T) {
	const secret = `8fQ~ab/cd+ef/gh&ij<kl>m'no"pq`
	b64 := base64.StdEncoding.EncodeToString([]byte("\x00\x00" + secret))
	s := New(secret, token)
	every := func(text, format string) string {
		var b strings.Builder
		for i := range len(text) {
			fmt.Fprintf(&b, format, text[i])
		}
		return b.String()
	}
	some := func(text, which, format string) string {
		var b strings.Builder
		for i := range len(text) {
			if strings.IndexByte(which, text[i]) >= 0 {
				fmt.Fprintf(&b, format, text[i])
			} else {
				b.WriteByte(text[i])
			}
		}
		return b.String()
	}
	parts := func(text string, n int, between string) string {
		var b strings.Builder
		for i := range len(text) {
			if i > 0 && i%n == 0 {
				b.WriteString(between)
			}
			b.WriteByte(text[i])
		}
		return b.String()
	}
	for name, echo := range map[string]string{
		"PHP":                    `"` + strings.ReplaceAll(strings.ReplaceAll(secret, `"`, `\"`), "/", `\/`) + `"`,
		".NET":                   some(secret, `+&<>'"`, `\u%04X`),
		"every letter in JSON":   every(secret, `\u%04x`),
		"every letter, percent":  every(secret, "%%%02X"),
		"percent in JSON":        strings.ReplaceAll(every(secret, "%%%02x"), "%", `\u0025`),
		"percent twice":          strings.ReplaceAll(every(secret, "%%%02x"), "%", "%25"),
		"entities":               every(secret, "&#%d;"),
		"hex entities":           every(secret, "&#x%X;"),
		"C":                      every(secret, `\x%02x`),
		"quoted-printable":       every(secret, "=%02X"),
		"one percent in four":    some(secret, "afhm", "%%%02X"),
		"blanks":                 parts(secret, 4, " "),
		"lines of a reply":       parts(b64, 5, "\r\n"),
		"base64 in JSON":         strings.ReplaceAll(b64, "/", `\/`),
		"base64 in an address":   url.QueryEscape(b64),
		"base64 in lines":        parts(b64, 7, "\n "),
		"a token in lines":       parts(token, 6, "\n"),
		"escaped lines":          parts(b64, 5, `\r\n`),
		"a token in JSON, in it": parts(token, 3, `\n`),
	} {
		got := s.Text("5.7.8 no: " + echo + " (id 42)")
		if !strings.HasPrefix(got, "5.7.8 no: ") || !strings.HasSuffix(got, " (id 42)") {
			t.Errorf("%s: %q", name, got)
		}
		if rest := strings.ReplaceAll(got, Redacted, ""); len(rest) > 42 {
			t.Errorf("%s: %q is left", name, rest)
		}
	}
}

func TestWhatIsNoEcho(t *testing.T) {
	s := New("correct horse battery", "hunter2", "1234", token)
	for _, text := range []string{
		"", "2.0.0 OK 1699999999 d9443c01a7336-1cc5a6f3b6esm123456 - gsmtp",
		"Authentication unsuccessful, the user credentials were incorrect. [BYAPR05CA0087.namprd05.prod.outlook.com]",
		"incorrect", "50%25 of &amp; \\u0041 = =41", "the hunt er of 24", "the limit of 12345 messages",
		"hunt for relay@example.com", "a text of letters: öäü",
	} {
		if got := s.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	var none *Scrubber
	if none.Text("x") != "x" || New().Text("x") != "x" || New("").Reply(mail.R(250, "", "x")).Text != "x" {
		t.Error("without secrets something changed")
	}
}

func TestShortSecrets(t *testing.T) {
	s := New("1234", "abc")
	if got := s.Text("login with 1234 (ABC) refused, id 123456"); got != "login with [redacted] ([redacted]) "+
		"refused, id 123456" {
		t.Error(got)
	}
}

func TestAddLater(t *testing.T) {
	s := New("first secret")
	s.Text("prepares it")
	s.Add("second one")
	if got := s.Text("first secret, second one"); got != Redacted+", "+Redacted {
		t.Error(got)
	}
}

// Whatever surrounds a secret and in whatever of its forms it comes, no long run of it is left, and what is left is
// text.
func FuzzText(f *testing.F) {
	f.Add("pass word 1234567", "no: ", "pass", 3)
	f.Add(token, "", token, 400)
	f.Fuzz(func(t *testing.T, secret, before, after string, cut int) {
		if !utf8.ValidString(before + after) {
			t.Skip()
		}
		s := New(secret)
		text := before + secret + after
		got := s.Text(text)
		if !utf8.ValidString(got) && utf8.ValidString(text) {
			t.Errorf("%q", got)
		}
		if len(secret) >= minRun && strings.Contains(fold(got), fold(secret)) && !strings.Contains(Redacted, secret) {
			t.Errorf("%q is left in %q", secret, got)
		}
		_ = cut
	})
}

// A reply without secrets, as each delivered message brings one.
func BenchmarkCleanReply(b *testing.B) {
	s := New("correct horse battery", token)
	b.ReportAllocs()
	for b.Loop() {
		s.Text("OK 1699999999 d9443c01a7336-1cc5a6f3b6esm123456 - gsmtp queued as 4Sx1y25zzzz")
	}
}
