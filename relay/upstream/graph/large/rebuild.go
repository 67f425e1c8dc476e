package large

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"postern/mail"
)

// Bounds of what Graph takes of a message in pieces.
const (
	// maxText is in octets of UTF-8: text and envelope share one request of 4 MB.
	maxText = 2_000_000
	// maxFiles of one message (learn.microsoft.com, Exchange Online limits, message limits).
	maxFiles = 250
	// maxFile is the largest file of an upload session, in octets (learn.microsoft.com, attachment:
	// createUploadSession).
	maxFile = 150_000_000
	// maxFileName keeps within what Windows and Exchange store, in octets.
	maxFileName = 240
)

// file is one attachment of a rebuilt message.
type file struct {
	name, media, cid string
	inline           bool
	size             int64
}

// Rebuilt is a message taken apart into what Graph makes one of.
type Rebuilt struct {
	m     *Message
	room  <-chan struct{} // see Rebuilder
	text  string          // in UTF-8
	html  bool
	files map[int]*file // by entity.number
	order []int         // the keys of files, ascending

	body []*entity // where text comes from
}

// rebuild checks a message and takes it apart, all but the content of its files.
func (m *Message) rebuild() (*Rebuilt, error) {
	b := &Rebuilt{m: m, files: make(map[int]*file)}
	var leaves []*entity
	top, err := m.measure(func(e *entity, decoded io.Reader) error {
		leaves = append(leaves, e)
		e.blank = strings.HasPrefix(e.media, "text/") && isBlank(decoded)
		return nil
	})
	if err == nil {
		err = faithful(m.Header, top)
	}
	if err == nil {
		err = b.collect(top, true)
	}
	if err == nil {
		err = b.read()
	}
	if err == nil {
		err = b.nameFiles(leaves)
	}
	return b, err
}

// collect finds the text of a message and its files. What a rebuilt message would falsify is refused.
func (b *Rebuilt) collect(e *entity, root bool) error {
	if err := sealed(e); err != nil {
		return err
	}
	switch {
	case e.media == "multipart/alternative":
		return b.alternative(e)
	case e.media == "multipart/related":
		return b.related(e)
	case e.isMultipart(): // others are read as mixed, RFC 2046 §5.1.7
		for _, part := range e.parts {
			if err := b.collect(part, false); err != nil {
				return err
			}
		}
	case e.blank && e.name == "" && !root: // programs put one before each file
	case b.isText(e, root):
		b.body = append(b.body, e)
	default:
		b.files[e.number] = &file{}
	}
	return nil
}

// isText tells the text of the message from files: the first one that has neither a file's name nor its disposition,
// and plain text behind plain text, as mailing lists add it.
func (b *Rebuilt) isText(e *entity, root bool) bool {
	if e.media != "text/plain" && e.media != "text/html" || e.disposition == "attachment" || e.name != "" && !root {
		return false
	}
	return len(b.body) == 0 || e.media == "text/plain" && b.body[len(b.body)-1].media == "text/plain"
}

// alternative takes the last version that Graph can hold, which is the best one (RFC 2046 §5.1.4). Texts that say the
// same in a poorer form are left out: Exchange makes one from HTML by itself.
func (b *Rebuilt) alternative(e *entity) error {
	chosen := -1
	for i, part := range e.parts {
		switch {
		case part.media == "text/calendar":
			return sealed(part)
		case part.media == "text/html" || part.isMultipart():
			if chosen >= 0 && e.parts[chosen].isMultipart() {
				return refuse("5.6.0", "it offers several versions of itself with parts, of which Graph takes one")
			}
			chosen = i
		case part.media == "text/plain" && (chosen < 0 || e.parts[chosen].media == "text/plain"):
			chosen = i
		}
	}
	for i, part := range e.parts {
		if i != chosen && strings.HasPrefix(part.media, "text/") && part.disposition != "attachment" {
			continue
		}
		if err := b.collect(part, false); err != nil {
			return err
		}
	}
	return nil
}

// related begins with its root (RFC 2387 §3.2).
func (b *Rebuilt) related(e *entity) error {
	root := 0
	if start := strings.Trim(e.params["start"], "<>"); start != "" {
		root = max(0, slices.IndexFunc(e.parts, func(p *entity) bool { return p.cid == start }))
	}
	if err := b.collect(e.parts[root], false); err != nil {
		return err
	}
	for i, part := range e.parts {
		if i == root {
			continue
		}
		if err := b.collect(part, false); err != nil {
			return err
		}
	}
	return nil
}

// isBlank reports whether a text is short and has nothing to read.
func isBlank(r io.Reader) bool {
	b, err := readText(r, 64)
	return err == nil && len(bytes.TrimSpace(b)) == 0
}

// read reads the text.
func (b *Rebuilt) read() error {
	texts := make(map[int]string, len(b.body))
	left := maxText
	err := b.m.walk(func(e *entity, decoded io.Reader) error {
		if !slices.ContainsFunc(b.body, func(t *entity) bool { return t.number == e.number }) {
			return nil
		}
		raw, err := readText(decoded, left)
		if errors.Is(err, errTooLong) {
			return refuse("5.3.4", "its text alone, without files, has more than %d octets", maxText)
		}
		if err != nil {
			return refuse("5.6.0", "its text cannot be decoded")
		}
		label := e.params["charset"]
		text, ok := toUTF8(label, raw)
		if !ok {
			return refuse("5.6.1", "its text has the charset %q, which we do not know",
				mail.Cut(mail.Printable(label), 40))
		}
		left -= len(raw)
		texts[e.number] = text
		return nil
	})
	if err != nil {
		return err
	}
	var all []string
	for _, e := range b.body {
		b.html = b.html || e.media == "text/html"
		all = append(all, texts[e.number])
	}
	b.text = strings.Join(all, "\r\n")
	switch {
	case len(b.text) > maxText:
		return refuse("5.3.4", "its text alone, without files, has more than %d octets", maxText)
	case strings.Contains(b.text, "-----BEGIN PGP SIGNED MESSAGE-----"),
		strings.Contains(b.text, "-----BEGIN PGP MESSAGE-----"):
		return refuse("5.6.0", "its text is signed or encrypted by PGP, which would not survive")
	}
	return nil
}

// nameFiles gives the files their names.
func (b *Rebuilt) nameFiles(leaves []*entity) error {
	if len(b.files) > maxFiles {
		return refuse("5.3.4", "it has %d files, Exchange takes at most %d", len(b.files), maxFiles)
	}
	for _, e := range leaves {
		f := b.files[e.number]
		if f == nil {
			continue
		}
		f.name, f.media, f.cid, f.size = fileName(e, len(b.order)+1), e.media, e.cid, e.size
		f.inline = b.html && e.cid != "" && mentions(b.text, e.cid)
		if f.size > maxFile {
			return refuse("5.3.4", "its file %q has %d octets, Microsoft Graph takes at most %d",
				mail.Printable(f.name), f.size, maxFile)
		}
		b.order = append(b.order, e.number)
	}
	return nil
}

// mentions reports whether a text shows a part (RFC 2392). One that it does not show must not be hidden as inline.
func mentions(html, cid string) bool {
	return strings.Contains(html, "cid:"+cid) || strings.Contains(html, "cid:"+url.PathEscape(cid))
}

// extensions are for files without name; the rest is .bin.
var extensions = map[string]string{
	"application/pdf": "pdf", "image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/tiff": "tif",
	"text/plain": "txt", "text/html": "html", "text/csv": "csv", "text/calendar": "ics", "text/xml": "xml",
	"application/zip": "zip", "application/xml": "xml", "message/rfc822": "eml",
}

// fileName is what a file is called: as its sender says, without a path and controls.
func fileName(e *entity, n int) string {
	name := e.name
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	if name = strings.TrimSpace(name); name == "" || name == "." || name == ".." {
		ext := extensions[e.media]
		ext = cmp.Or(ext, "bin")
		return fmt.Sprintf("attachment-%d.%s", n, ext)
	}
	if e.media == "message/rfc822" && !strings.Contains(name, ".") {
		name += ".eml"
	}
	if len(name) > maxFileName { // the end says what it is
		name = strings.ToValidUTF8(name[len(name)-maxFileName:], "")
	}
	return name
}
