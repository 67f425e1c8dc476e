package relay

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

// authorGrammar writes author fields of what readers are known to differ in. Everybody in evil.example is
// somebody whom the login may not be.
type authorGrammar struct{ r *rand.Rand }

func (g authorGrammar) pick(list []string) string { return list[g.r.IntN(len(list))] }

// header writes one header: mostly a From field, now and then with others beside it.
func (g authorGrammar) header() string {
	var b strings.Builder
	names := []string{"From"}
	for _, more := range []string{"From", "Sender", "Resent-From", "Resent-Sender"} {
		if g.r.IntN(12) == 0 {
			names = append(names, more)
		}
	}
	g.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		fmt.Fprintf(&b, "%s:%s%s\r\n", name, g.pick([]string{" ", " ", "", "\r\n "}), g.list())
	}
	return b.String() + "Subject: x\r\n\r\n"
}

func (g authorGrammar) list() string {
	switch g.r.IntN(8) {
	case 0:
		return g.soup(1 + g.r.IntN(10))
	case 1:
		return g.mailbox() + g.pick([]string{",", ", ", ",\r\n ", " , ", ";", ",,"}) + g.mailbox()
	}
	return g.mailbox()
}

// mailbox is often one that the login may be, with a name that says something else.
func (g authorGrammar) mailbox() string {
	own := g.pick([]string{"<alice@example.com>", "<alice@example.com>", "<Alice@EXAMPLE.com>", "<any@wild.example>",
		"alice@example.com", "< alice@example.com >",
		"<alice@example.com> (x)", "<alice@example.com>\r\n " +
			"(x)", `<"a..b"@example.com>`, "<a..b@example.com>", `"alice"@example.com`})
	switch g.r.IntN(10) {
	case 0:
		return own
	case 1:
		return g.soup(1+g.r.IntN(3)) + own + g.soup(1+g.r.IntN(3))
	case 2:
		return g.pick(localTricks)
	case 3, 4, 5:
		return g.quoted() + g.gap() + own
	}
	return g.soup(1+g.r.IntN(5)) + g.gap() + own
}

func (g authorGrammar) gap() string {
	return g.pick([]string{" ", " ", " ", "", "\r\n ", "\r\n\t", "\t", "  ", " \r\n  "})
}

func (g authorGrammar) soup(n int) string {
	var b strings.Builder
	for range n {
		switch g.r.IntN(5) {
		case 0:
			b.WriteString(g.encoded())
		case 1:
			b.WriteString(g.quoted())
		default:
			b.WriteString(g.pick(nasty))
		}
		if g.r.IntN(2) == 0 {
			b.WriteString(g.gap())
		}
	}
	return b.String()
}

// quoted is a quoted string, well formed or not, with folds in it.
func (g authorGrammar) quoted() string {
	var b strings.Builder
	for range 1 + g.r.IntN(4) {
		b.WriteString(g.pick(nasty))
		if g.r.IntN(4) == 0 {
			b.WriteString(g.gap())
		}
	}
	s := b.String()
	if g.r.IntN(4) > 0 {
		s = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
	}
	return `"` + s + `"`
}

// encoded is an encoded word of something nasty, whole or broken.
func (g authorGrammar) encoded() string {
	text := g.pick(payloads)
	charset := g.pick([]string{"utf-8", "utf-8", "UTF-8", "iso-8859-1", "us-ascii", "koi8-r", "iso-2022-jp",
		"shift_jis", "gb2312", "utf-16be", "utf-7", "cp037", "x-unknown", "utf-8*en"})
	var e encoding.Encoding
	switch charset {
	case "iso-2022-jp":
		e = japanese.ISO2022JP
	case "shift_jis":
		e = japanese.ShiftJIS
	case "gb2312":
		e = simplifiedchinese.GBK
	case "utf-16be":
		e = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	}
	if e != nil {
		if s, err := e.NewEncoder().String(text); err == nil {
			text = s
		}
	}
	if g.r.IntN(2) == 0 {
		return "=?" + charset + "?b?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == ' ':
			b.WriteString(g.pick([]string{"_", "_", "=20", " "}))
		case c >= 0x80 || c < ' ' || strings.IndexByte("=?_", c) >= 0, !isAlnum(c) && g.r.IntN(8) > 0:
			fmt.Fprintf(&b, "=%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return "=?" + charset + "?q?" + b.String() + "?="
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var nasty = []string{
	`"`, `\"`, `\`, `\\`, "<", ">", "(", ")", ",", ";", ":", "@", "[", "]", ".", " ", "\t", "\r\n ", "\r\n\t", "'", "%",
	"=?", "?=", "=", "_",
	"Ann", "Ann Other", "J. R.", "Other, Ann", "(comment)", "(a (b) c)", `(\))`, "(<ceo@evil.example>)",
	"(ceo@evil.example)", "group:", ";", "undisclosed:;",
	"ceo", "evil.example", "ceo@", "@evil.example", "ceo @", " @ evil.example", "ceo@evil.example",
	"<ceo@evil.example>", "<ceo @evil.example>", "ceo @evil.example",
	`"ceo"@evil.example`, "ceo@evil.example,", "<@evil.example:alice@example.com>", "@evil.example,@x.example:",
	"alice@example.com", "<alice@example.com>",
	"alice@example.com,", "ceo%evil.example@wild.example", "evil.example!ceo@wild.example", "J\xfcrgen", "J\u00fcrgen",
	"\u738b\u5c0f\u660e", "\u200b", "\u200d", "\u202e",
	"ceo\uff20evil.example", "ceo\u200b@evil.example", "ceo@evil\u3002example", "ceo@\u00adevil.example", "\u24d0",
	"[A1]", "DOM\\ann", "&lt;ceo@evil.example&gt;", "mailto:",
	"a\u0301", "\u00a0", "\u0085", "{", "}", "|", "~", "^", "`", "#", "!", "$", "*", "/", "+AEA-", "=22", "=40",
}

var payloads = []string{
	"Ann", "J\u00fcrgen", "M\u00fcller, J\u00fcrgen", "\u738b\u5c0f\u660e", "ceo@evil.example", `"ceo"@evil.example,`,
	"ceo@evil.example,", "<ceo@evil.example>", `x" <ceo@evil.example>, "`,
	"<ceo@evil.example> (", "(", ")", `"`, `\`, "<", ">", "@", ",", ";", ":", "ceo@", "@evil.example", "ceo",
	"evil.example", "ceo\uff20evil.example", "\uff20", "=?utf-8?q?ceo=40evil.example?=",
	"x: ceo@evil.example;", "ceo\u200b@evil.example", "\r\nSender: ceo@evil.example", "a\x00b", "alice@example.com",
	"Ann (Sales)", "J\u00fcrgen @ Home", "J\u00fcrgen \"J\" [x]", "", " ",
	"ceo@evil\u3002example", "\u202eelpmaxe.live@oec", "M\u00fcller (", "J\u00fc \\", "\u00e9\" <",
}

// localTricks are addresses in domains of the login whose local part says another address.
var localTricks = []string{
	`"ceo@evil.example"@wild.example`, `"ceo@evil.example x"@wild.example`, `<"ceo@evil.example"@wild.example>`,
	`Ann <"ceo@evil.example,"@wild.example>`,
	`=?utf-8?q?ceo=40evil.example=2C?=@wild.example`, `<=?utf-8?q?ceo=40evil.example?=@wild.example>`,
	`"=?utf-8?q?ceo=40evil.example=2C?="@wild.example`,
	`"<ceo@evil.example>"@wild.example`, `"ceo\@evil.example"@wild.example`, `"x, ceo@evil.example, y"@wild.example`,
	"ceo\uff20evil.example@wild.example",
	`"a b"@wild.example`, `"a..b"@wild.example`, `..@wild.example`, `"(ceo@evil.example)"@wild.example`,
	`"\"ceo\"@evil.example"@wild.example`, `ceo@evil.example@wild.example`,
	`<ceo@evil.example@wild.example>`, `a@wild.example.`, `a@[127.0.0.1]`, `ceo@evil.example:a@wild.example`,
}
