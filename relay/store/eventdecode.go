package store

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"postern/relay/trace"
)

// decodeEvent reads what newEventRow wrote. Searching and indexing read many events; what they look like is known, and
// reading them as that takes a fifth of the time of encoding/json, which reads whatever is different.
func decodeEvent(data string, e *trace.Event) error {
	d := eventDecoder{s: data}
	if d.event(e) {
		return nil
	}
	*e = trace.Event{}
	return json.Unmarshal([]byte(data), e)
}

// eventDecoder reads one JSON object of strings, numbers and one object more. It gives up where it meets something
// else.
type eventDecoder struct {
	s  string
	at int
}

func (d *eventDecoder) event(e *trace.Event) bool {
	return d.object(func(key string) bool { return d.field(e, key) }) && d.at == len(d.s)
}

func (d *eventDecoder) field(e *trace.Event, key string) bool {
	switch key {
	case "listener":
		return d.text(&e.Listener)
	case "client":
		return d.text(&e.Client)
	case "tls":
		return d.text(&e.TLS)
	case "hello":
		return d.text(&e.Hello)
	case "from":
		return d.text(&e.From)
	case "author":
		return d.text(&e.Author)
	case "to":
		return d.text(&e.To)
	case "message_id":
		return d.text(&e.MessageID)
	case "upstream":
		return d.text(&e.Upstream)
	case "identity":
		return d.text(&e.Identity)
	case "class":
		return d.text(&e.Class)
	case "stage":
		return d.text(&e.Stage)
	case "rule":
		return d.text(&e.Rule)
	case "detail":
		return d.text(&e.Detail)
	case "size":
		return d.number(&e.Size)
	case "attempt":
		var n int64
		ok := d.number(&n)
		e.Attempt = int(n)
		return ok
	case "took_ns":
		return d.number((*int64)(&e.Took))
	case "reply":
		return d.object(func(key string) bool { return d.replyField(e, key) })
	}
	return false
}

func (d *eventDecoder) replyField(e *trace.Event, key string) bool {
	switch key {
	case "code":
		var n int64
		ok := d.number(&n)
		e.Reply.Code = int(n)
		return ok
	case "enhanced":
		return d.text(&e.Reply.Enhanced)
	case "text":
		return d.text(&e.Reply.Text)
	}
	return false
}

func (d *eventDecoder) object(field func(key string) bool) bool {
	if !d.take('{') {
		return false
	}
	for first := true; !d.take('}'); first = false {
		if !first && !d.take(',') {
			return false
		}
		var key string
		if !d.text(&key) || !d.take(':') || !field(key) {
			return false
		}
	}
	return true
}

func (d *eventDecoder) take(c byte) bool {
	if d.at < len(d.s) && d.s[d.at] == c {
		d.at++
		return true
	}
	return false
}

// number reads up to 18 digits.
func (d *eventDecoder) number(n *int64) bool {
	minus := d.take('-')
	start := d.at
	*n = 0
	for d.at < len(d.s) && d.s[d.at] >= '0' && d.s[d.at] <= '9' {
		*n = *n*10 + int64(d.s[d.at]-'0')
		d.at++
	}
	digits := d.at - start
	if minus {
		*n = -*n
	}
	return digits == 1 || digits > 1 && digits <= 18 && d.s[start] != '0'
}

// text reads a string. It shares the memory of the row unless something in it is escaped.
func (d *eventDecoder) text(to *string) bool {
	if !d.take('"') {
		return false
	}
	start := d.at
	for ; d.at < len(d.s); d.at++ {
		switch c := d.s[d.at]; {
		case c == '"':
			*to = d.s[start:d.at]
			d.at++
			return true
		case c == '\\':
			return d.escaped(to, start)
		case c < ' ' || c >= utf8.RuneSelf: // encoding/json knows what to make of it
			return false
		}
	}
	return false
}

func (d *eventDecoder) escaped(to *string, start int) bool {
	var b strings.Builder
	b.WriteString(d.s[start:d.at])
	for d.at < len(d.s) {
		c := d.s[d.at]
		d.at++
		switch {
		case c == '"':
			*to = b.String()
			return true
		case c < ' ' || c >= utf8.RuneSelf:
			return false
		case c != '\\':
			b.WriteByte(c)
		case !d.escape(&b):
			return false
		}
	}
	return false
}

// escape reads what follows a backslash: the escapes of ASCII that encoding/json writes.
func (d *eventDecoder) escape(b *strings.Builder) bool {
	rest := d.s[d.at:]
	const plain, meaning = `"\nrt`, "\"\\\n\r\t"
	if len(rest) > 0 {
		if i := strings.IndexByte(plain, rest[0]); i >= 0 {
			b.WriteByte(meaning[i])
			d.at++
			return true
		}
	}
	if len(rest) < 5 || rest[:3] != "u00" {
		return false
	}
	high, low := strings.IndexByte("01234567", rest[3]), strings.IndexByte("0123456789abcdef", rest[4])
	if high < 0 || low < 0 {
		return false
	}
	b.WriteByte(byte(high<<4 | low))
	d.at += 5
	return true
}
