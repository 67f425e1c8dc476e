package encode

import (
	"bytes"
	"io"
	"unicode/utf8"

	"postern/mail"
)

// planner plans the changes, and refuses what cannot change.
type planner struct {
	plan *Plan
	text textScan // of a message without Content-Type

	twins  bool   // the rest is ambiguous
	long   spot   // the first long line of the part
	like   bool   // the part has lines that begin like a delimiter
	broken string // why its long lines cannot be folded or wrapped
	fold   folder // a dry run of what rewriter will do
	astray spot   // a long line of a multipart before its first part
}

// spot is a line's number and its beginning.
type spot struct {
	line int64
	head []byte
}

func spotOf(p piece) spot {
	b := bytes.TrimSuffix(p.b, []byte("\r\n"))
	return spot{line: p.line, head: bytes.Clone(b[:min(len(b), mail.LineHead)])}
}

func (s spot) refuse(why string) error { return refuse(s.line, s.head, "%s", why) }

func (pl *planner) header(e *entity) error {
	pl.twins = pl.twins || e.locked == twins
	at := mail.LongLine(e.raw)
	if at == len(e.raw) {
		return nil
	}
	text, _, _ := bytes.Cut(e.raw[at:], []byte("\r\n"))
	s := spotOf(piece{b: text, line: e.line + int64(bytes.Count(e.raw[:at], []byte{'\n'}))})
	pl.note(s)
	if !e.formed {
		return s.refuse(e.locked)
	}
	for _, f := range e.header.Fields {
		if _, err := mail.FoldLong(f); err != nil {
			return s.refuse("it is in the header of a part, and the field has no place where it can be folded")
		}
	}
	return nil
}

// note records that something must change.
func (pl *planner) note(s spot) {
	if !pl.plan.changed {
		pl.plan.changed, pl.plan.first = true, s.line
	}
}

func (pl *planner) body(e *entity, p piece) error {
	if e.number == 0 && !e.header.Has("Content-Type") {
		pl.text.add(p.b)
	}
	pl.like = pl.like || p.like
	if !p.long {
		return nil
	}
	if p.first && pl.long.line == 0 {
		pl.long = spotOf(p)
	}
	switch {
	case pl.twins:
		return pl.long.refuse(twins)
	case e.locked != "":
		return pl.long.refuse(e.locked)
	case e.encoding == base64 && pl.broken == "" && !isBase64(p.b):
		pl.broken = "its part is not the base64 that it says it is"
	case e.encoding == quotedPrintable:
		pl.fold.add(p.b)
		if pl.fold.widest > mail.MaxLine {
			pl.broken = "its part is not the quoted-printable that it says it is"
		}
		pl.fold.out = pl.fold.out[:0]
	}
	return nil
}

func (pl *planner) outside(e *entity, p piece) error {
	if !p.long || !p.first {
		return nil
	}
	if pl.twins {
		return spotOf(p).refuse(twins)
	}
	pl.note(spotOf(p))
	if e != nil && e.parts == 0 && pl.astray.line == 0 {
		pl.astray = spotOf(p)
	}
	return nil
}

func (pl *planner) end(e *entity) error {
	if e.kind == multipart {
		if e.parts == 0 && pl.astray.line > 0 {
			return pl.astray.refuse("its multipart has no parts")
		}
		return nil
	}
	long, like, broken := pl.long, pl.like, pl.broken
	pl.long, pl.like, pl.broken, pl.fold = spot{}, false, "", folder{out: pl.fold.out[:0]}
	if e.number == 0 {
		pl.plan.charset = pl.text.charset()
	}
	if long.line == 0 {
		return nil
	}
	pl.note(long)
	switch {
	case broken != "":
		return long.refuse(broken)
	case like:
		return long.refuse("its part has lines that begin like the boundary and are none")
	case len(pl.plan.actions) == maxActions:
		return long.refuse("more than 1000 parts have such lines")
	}
	a := map[encoding]action{identity: quote, quotedPrintable: requote, base64: rewrap}[e.encoding]
	pl.plan.actions[e.number] = a
	pl.plan.counts[a]++
	return nil
}

func isBase64(b []byte) bool {
	for _, c := range b {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/', c == '=':
		case c == ' ', c == '\t', c == '\r', c == '\n':
		default:
			return false
		}
	}
	return true
}

// textScan guesses the charset of a text.
type textScan struct {
	eightBit, invalid bool
	rest              [utf8.UTFMax]byte // an incomplete character
	n                 int
}

// Write implements io.Writer.
func (t *textScan) Write(b []byte) (int, error) {
	t.add(b)
	return len(b), nil
}

func (t *textScan) add(b []byte) {
	for t.n > 0 && len(b) > 0 && !t.invalid {
		t.rest[t.n], b = b[0], b[1:]
		if t.n++; utf8.FullRune(t.rest[:t.n]) {
			t.invalid = !utf8.Valid(t.rest[:t.n])
			t.n = 0
		}
	}
	if len(b) == 0 {
		return
	}
	t.eightBit = t.eightBit || bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0
	if t.invalid {
		return
	}
	whole := len(b)
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) && !utf8.FullRune(tail) {
			whole = len(b) - i
			break
		}
	}
	t.invalid = !utf8.Valid(b[:whole])
	t.n = copy(t.rest[:], b[whole:])
}

// charset names the charset of the text. If it is neither ASCII nor UTF-8, a guess would be wrong somewhere in the
// world; readers guess better if told that it is unknown (RFC 1428 §3).
func (t *textScan) charset() string {
	switch {
	case !t.eightBit && t.n == 0:
		return "us-ascii"
	case t.invalid || t.n > 0:
		return "unknown-8bit"
	}
	return "utf-8"
}

// Charset returns the charset of a body that declares none: us-ascii, utf-8 or unknown-8bit.
func Charset(c mail.Content, body int64) (string, error) {
	r, err := c.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	if err := skip(r, body); err != nil {
		return "", err
	}
	var t textScan
	if _, err := io.CopyBuffer(&t, struct{ io.Reader }{r}, make([]byte, pieceSize)); err != nil {
		return "", err
	}
	return t.charset(), nil
}
