// Package privacy takes the addresses of recipients and clients out of what is kept of mail: it hashes them with a key,
// so that who knows an address still finds it, or cuts them down to a domain or network.
//
// Failure semantics: it is pure and cannot fail. What was hashed or cut stays so: there is no way back, and to do it
// again changes nothing.
package privacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"postern/mail"
	"postern/relay/trace"
)

// Mode is what becomes of addresses.
type Mode string

// The modes.
const (
	Keep Mode = "keep"
	Hash Mode = "hash" // recipients: ~HASH@domain; clients: ~HASH
	Cut  Mode = "cut"  // recipients: @domain; clients: their network, /24 or /48
)

// Modes are all modes.
var Modes = []Mode{Keep, Hash, Cut}

// hashed begins what was hashed; hashDigits hexadecimal digits follow, 80 bits of an HMAC-SHA-256.
const (
	hashed     = "~"
	hashDigits = 20
)

// Rules say what becomes of which addresses. The zero value keeps all.
type Rules struct {
	Recipients, Clients Mode
	Key                 []byte // of the HMAC
}

// Keeps reports whether nothing is changed.
func (r *Rules) Keeps() bool { return keeps(r.Recipients) && keeps(r.Clients) }

func keeps(m Mode) bool { return m == "" || m == Keep }

// String names the rules, without the key.
func (r *Rules) String() string {
	return fmt.Sprintf("recipients %s, clients %s", r.Recipients, r.Clients)
}

// Apply changes an event and reports whether it did. A recipient's address is changed wherever it stands: also other
// addresses in a reply or detail are, but those of the sender and of the login, since providers name recipients in many
// ways.
func (r *Rules) Apply(e *trace.Event) (changed bool) {
	before := *e
	if !keeps(r.Recipients) {
		r.recipients(e)
	}
	if !keeps(r.Clients) && e.Client != "" {
		client := e.Client
		e.Client, e.Hello = r.Client(client), "" // a name of a machine is as good as its address
		e.Reply.Text = replaceWhole(e.Reply.Text, client, e.Client)
		e.Detail = replaceWhole(e.Detail, client, e.Client)
	}
	return *e != before
}

func (r *Rules) recipients(e *trace.Event) {
	own := map[string]bool{}
	for _, address := range []string{e.From, e.Author, e.Login, e.Identity, strings.Trim(e.MessageID, "<>")} {
		own[strings.ToLower(address)] = true
	}
	change := func(address string) string {
		if own[strings.ToLower(address)] {
			return address
		}
		return r.Recipient(address)
	}
	if to := e.To; to != "" {
		if _, err := mail.ParseAddress(to); err == nil {
			e.To = r.Recipient(to)
			e.Reply.Text = replaceWhole(e.Reply.Text, to, e.To)
			e.Detail = replaceWhole(e.Detail, to, e.To)
		} else {
			e.To = eachAddress(to, r.Recipient) // "a@b.example and 2 more"
		}
	}
	e.Reply.Text = eachAddress(e.Reply.Text, change)
	e.Detail = eachAddress(e.Detail, change)
}

// Recipient returns what stands for an address.
func (r *Rules) Recipient(address string) string {
	at := strings.LastIndexByte(address, '@')
	if keeps(r.Recipients) || at <= 0 {
		return address
	}
	if r.Recipients == Cut {
		return address[at:]
	}
	if isHashed(address[:at]) {
		return address
	}
	return r.HashOf(address) + strings.ToLower(address[at:])
}

// HashOf returns what stands for a text where addresses are hashed, without its domain. Case is ignored.
func (r *Rules) HashOf(text string) string {
	mac := hmac.New(sha256.New, r.Key)
	mac.Write([]byte(strings.ToLower(text)))
	return hashed + hex.EncodeToString(mac.Sum(nil))[:hashDigits]
}

func isHashed(s string) bool {
	digits, ok := strings.CutPrefix(s, hashed)
	return ok && len(digits) == hashDigits && strings.Trim(digits, "0123456789abcdef") == ""
}

// Client returns what stands for the address, or network, of a client.
func (r *Rules) Client(client string) string {
	if keeps(r.Clients) || client == "" || isHashed(client) {
		return client
	}
	p, err := netip.ParsePrefix(client)
	if err != nil {
		a, err := netip.ParseAddr(client)
		if err != nil {
			return client
		}
		a = a.Unmap().WithZone("")
		p = netip.PrefixFrom(a, a.BitLen())
	}
	bits := 48
	if p.Addr().Is4() {
		bits = 24
	}
	switch {
	case p.Bits() <= bits: // is cut already
		return client
	case r.Clients == Cut:
		return netip.PrefixFrom(p.Addr(), bits).Masked().String()
	}
	if p.IsSingleIP() {
		client = p.Addr().String()
	}
	return r.HashOf(client)
}

// eachAddress replaces whatever looks like an address.
func eachAddress(s string, change func(string) string) string {
	var b strings.Builder
	for {
		at := strings.IndexByte(s, '@')
		if at < 0 {
			break
		}
		begin, end := at, at+1
		for begin > 0 && isLocal(s[begin-1]) {
			begin--
		}
		for end < len(s) && isDomain(s[end]) {
			end++
		}
		end = at + 1 + len(strings.TrimRight(s[at+1:end], ".-"))
		b.WriteString(s[:begin])
		if begin < at && end > at+1 {
			b.WriteString(change(s[begin:end]))
		} else {
			b.WriteString(s[begin:end])
		}
		s = s[end:]
	}
	if b.Len() == 0 {
		return s
	}
	return b.String() + s
}

func isLocal(c byte) bool { return isDomain(c) || strings.IndexByte("!#$%&'*+/=?^_`{|}~", c) >= 0 }

func isDomain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' ||
		c >= utf8.RuneSelf
}

// replaceWhole replaces a text where it is no part of a longer word, whatever its case.
func replaceWhole(s, old, by string) string {
	if old == "" || len(s) < len(old) {
		return s
	}
	var b strings.Builder
	from := 0
	for i := 0; i+len(old) <= len(s); i++ {
		if !strings.EqualFold(s[i:i+len(old)], old) || i > 0 && isWord(s[i-1]) ||
			i+len(old) < len(s) && isWordAfter(s[i+len(old):]) {
			continue
		}
		b.WriteString(s[from:i])
		b.WriteString(by)
		from = i + len(old)
		i = from - 1
	}
	if from == 0 {
		return s
	}
	return b.String() + s[from:]
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf
}

// isWordAfter reports whether a word goes on: also with ".1" or ":1", which an address may.
func isWordAfter(s string) bool {
	if s[0] == '.' || s[0] == ':' || s[0] == '-' {
		return len(s) > 1 && isWord(s[1])
	}
	return isWord(s[0])
}

// Redact replaces every mention of a name or address, whatever its case, and reports whether there was one.
func Redact(s, name, by string) (string, bool) {
	got := replaceWhole(s, name, by)
	return got, got != s
}
