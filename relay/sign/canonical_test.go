package sign

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"

	"postern/mail"
)

// recorder is a hash that keeps what it is given.
type recorder struct{ bytes.Buffer }

func (r *recorder) Sum(b []byte) []byte { return append(b, r.Bytes()...) }
func (r *recorder) Size() int           { return 32 }
func (r *recorder) BlockSize() int      { return 64 }

// relaxedBody returns the canonical form of a body given in pieces.
func relaxedBody(parts ...[]byte) string {
	var r recorder
	h := bodyHash{hash: &r}
	for _, p := range parts {
		h.write(p)
	}
	h.sum(new([sha256.Size]byte))
	return r.String()
}

var (
	runs  = regexp.MustCompile(`[ \t]+`)
	ends  = regexp.MustCompile(` \r\n`)
	empty = regexp.MustCompile(`(\r\n)*$`)
)

// naive is RFC 6376 §3.4.4 word by word, for a body of lines that end with CRLF or nothing.
func naive(body string) string {
	body = runs.ReplaceAllString(body, " ")
	body = ends.ReplaceAllString(body, "\r\n")
	body = strings.TrimSuffix(body, " ")
	body = empty.ReplaceAllString(body, "")
	if body == "" {
		return ""
	}
	return body + "\r\n"
}

func TestRelaxedBody(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"\r\n", ""},
		{"\r\n\r\n", ""},
		{" \r\n\t\r\n", ""},
		{"   ", ""},
		{"a", "a\r\n"},
		{"a\r\n", "a\r\n"},
		{"a\r\n\r\n\r\n", "a\r\n"},
		{"a \t\r\n \t \r\n", "a\r\n"},
		{" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"}, // RFC 6376 §3.4.5
		{"\r\n\r\na", "\r\n\r\na\r\n"},
		{"\t\ta  b\tc\r\n", " a b c\r\n"},
		{"a\r\n\r\n b\r\n", "a\r\n\r\n b\r\n"},
		{"a \r\nb", "a\r\nb\r\n"},
		{"a\t", "a\r\n"},
		{"a\rb \rc\r", "a\rb \rc\r\r\n"},
		{"a\n b\n", "a\n b\n\r\n"},
	} {
		if got := relaxedBody([]byte(c.in)); got != c.want {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
	}
}

// TestPublishedBodyHash is the example of RFC 8463 appendix A.
func TestPublishedBodyHash(t *testing.T) {
	const body = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
	h := bodyHash{hash: sha256.New()}
	h.write([]byte(body))
	var sum [sha256.Size]byte
	h.sum(&sum)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=" {
		t.Errorf("bh=%s", got)
	}
}

// TestRelaxedBodyPieces: every way to cut a body gives the same octets, those of the RFC.
func TestRelaxedBodyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.StringMatching(`([ab]|[ \t]|\r\n){0,60}`).Draw(t, "body")
		var parts [][]byte
		for rest := body; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			parts = append(parts, []byte(rest[:n]))
			rest = rest[n:]
		}
		if got := relaxedBody(parts...); got != naive(body) {
			t.Fatalf("%q in %q becomes %q, want %q", body, parts, got, naive(body))
		}
	})
}

func FuzzRelaxedBody(f *testing.F) {
	for _, s := range []string{"", "a \r\n", "\t \r\n\r\n", "a\rb", " a", "a\r", "a \r", "\r\n a\r\n"} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, body string, cut int) {
		whole := relaxedBody([]byte(body))
		if n := min(max(cut, 0), len(body)); relaxedBody([]byte(body[:n]), []byte(body[n:])) != whole {
			t.Fatalf("%q cut at %d: another form", body, n)
		}
		if bare := regexp.MustCompile(`\r[^\n]|[^\r]\n|^\n|\r$`); bare.MatchString(body) {
			return
		}
		if whole != naive(body) {
			t.Fatalf("%q becomes %q, want %q", body, whole, naive(body))
		}
	})
}

func TestAppendRelaxed(t *testing.T) {
	for in, want := range map[string]string{
		" Two   words ":           "subject:Two words",
		"":                        "subject:",
		" \r\n\t":                 "subject:",
		"\r\n a\r\n\tb\t \tc\r\n": "subject:a b c",
		"x":                       "subject:x",
	} {
		if got := string(appendRelaxed(nil, "subject", []byte(in))); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// bodies is what people send, 1 MiB each: an attachment, prose, and text full of indentation.
func bodies() map[string][]byte {
	fill := func(line string) []byte {
		return bytes.Repeat([]byte(line), (1<<20)/len(line))
	}
	return map[string][]byte{
		"base64": fill("TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24sIGJ1dCBieSB0aGlz\r\n"),
		"prose":  fill("The quick brown fox jumps over the lazy dog and runs away from it as it can.\r\n"),
		"code": fill("\t\tif err != nil {  // indented\r\n\t\t\treturn fmt.Errorf(\"x:  %w\", err) \r\n" +
			"\t\t}\r\n\r\n"),
	}
}

func BenchmarkBody(b *testing.B) {
	for name, body := range bodies() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				h := bodyHash{hash: sha256.New()}
				h.write(body)
				h.sum(new([sha256.Size]byte))
			}
		})
	}
	b.Run("sha256-alone", func(b *testing.B) {
		body := bodies()["base64"]
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			fmt.Fprint(nowhere{}, sha256.Sum256(body))
		}
	})
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// The rivals of docs/decisions/0005: both sign a message with an RSA-2048 and an Ed25519 key.
func BenchmarkSign(b *testing.B) {
	keys := bothKeys(b)
	head := message[:strings.Index(message, "\r\n\r\n")+4]
	sizes := map[string][]byte{"4KiB": bodies()["prose"][:4<<10], "1MiB-base64": bodies()["base64"],
		"1MiB-prose": bodies()["prose"], "1MiB-code": bodies()["code"]}
	for name, body := range sizes {
		m := append([]byte(head), body...)
		b.Run("own/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Sign(mail.BytesContent(m), keys, now, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("msgauth/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, k := range keys {
					s, err := dkim.NewSigner(&dkim.SignOptions{
						Domain: k.Domain, Selector: k.Selector, Signer: k.Signer, HeaderKeys: oversigned,
						HeaderCanonicalization: "relaxed", BodyCanonicalization: "relaxed",
					})
					if err != nil {
						b.Fatal(err)
					}
					s.Write(m)
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
