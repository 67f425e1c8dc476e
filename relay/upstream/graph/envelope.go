package graph

import (
	"bytes"
	"cmp"
	"strings"

	"golang.org/x/text/unicode/norm"

	"postern/mail"
)

// Graph sends to the people in these fields. Whether it also looks at the resent ones is not documented: they must not
// name strangers, and nobody is taken to be reached by them.
var (
	recipientFields = []string{"To", "Cc", "Bcc"}
	resentFields    = []string{"Resent-To", "Resent-Cc", "Resent-Bcc", "Apparently-To"}
)

// addressees is whom a header field names.
type addressees struct {
	// sure are addresses that every reader finds, and at is where each stands.
	sure []mail.Address
	at   []span
	// possible are addresses that a reader may find who is less strict, or more so.
	possible []mail.Address
	// locals are local parts without a domain, as programs on one machine write each other.
	locals []span
	// unclear is text that names somebody we cannot tell.
	unclear string
}

// span is a part of a field's value.
type span struct {
	from, to int
	text     string
}

// key makes addresses comparable as Exchange compares them: without regard to case, whichever of its forms a domain
// has.
func key(a mail.Address) string {
	domain := a.Domain
	if !ascii(domain) {
		domain = mail.ALabels(domain)
	}
	local := a.Local
	if !ascii(local) {
		local = norm.NFC.String(local)
	}
	return strings.ToLower(local) + "@" + strings.ToLower(domain)
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0
}

func keys[T any](list []T, address func(T) mail.Address) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, v := range list {
		m[key(address(v))] = true
	}
	return m
}

// shape compares a header with an envelope.
type shape struct {
	blind   []int        // recipients that no header field reaches, in order
	named   int          // recipients that one does
	written []correction // of addresses that Graph could misread
}

// compare finds out who of the recipients needs a Bcc. A header that names anybody else is a fault: of the message, or,
// if whole knows them, of our having parted the envelope.
func compare(h mail.Header, recipients []mail.Recipient, whole []mail.Address) (shape, *fault) {
	in := keys(recipients, func(r mail.Recipient) mail.Address { return r.To })
	ours := keys(whole, func(a mail.Address) mail.Address { return a })
	reached := make(map[string]bool, len(in))
	var parted *fault
	var s shape
	for n, field := range h.Fields {
		name, counts := isRecipientField(field)
		if name == "" {
			continue
		}
		who := readAddressees(field.Value())
		if who.unclear != "" {
			return shape{}, unclear(name, who.unclear)
		}
		for _, list := range [][]mail.Address{who.sure, who.possible} {
			for _, a := range list {
				switch {
				case in[key(a)]:
				case ours[key(a)]:
					parted = partedFault(name, a)
				default:
					return shape{}, stranger(name, a)
				}
			}
		}
		full, f := who.complete(name, recipients, whole)
		switch {
		case f != nil && f.class.Permanent():
			return shape{}, f
		case f != nil:
			parted = f
		case len(full) > 0:
			s.written = append(s.written, correction{n, full})
		}
		// Of a field that is there twice a reader may see one.
		if counts && h.Count(name) == 1 {
			for _, a := range who.sure {
				reached[key(a)] = true
			}
		}
	}
	if parted != nil {
		return shape{}, parted
	}
	for i, r := range recipients {
		if reached[key(r.To)] {
			s.named++
		} else {
			s.blind = append(s.blind, i)
		}
	}
	return s, nil
}

// isRecipientField returns the field's name in our spelling, "" for other fields. counts: Graph is known to send to
// those in it. Bcc does not count, since ours takes its place.
func isRecipientField(f mail.Field) (name string, counts bool) {
	for _, name := range recipientFields {
		if f.Is(name) {
			return name, name != "Bcc"
		}
	}
	for _, name := range resentFields {
		if f.Is(name) {
			return name, false
		}
	}
	return "", false
}

// RFC 3463 §3.4, X.3.3: the system is not capable of selected features. An envelope of its own is such a feature.
func stranger(field string, a mail.Address) *fault {
	return messageFault(554, "5.3.3", "the %s field names %s, who is no recipient of this message. Microsoft Graph "+
		"sends to everybody in the header, so it cannot carry this message: "+
		"name its recipients only, or send it by an SMTP upstream", field, mail.Printable(a.String()))
}

func unclear(field, text string) *fault {
	return messageFault(554, "5.3.3", "the %s field has %q, of which nobody can tell to whom Microsoft Graph would "+
		"send: write Name <user@example.com>", field, mail.Cut(mail.Printable(text), 100))
}

// partedFault keeps the mail: it is not the sender's doing. Being back-pressure lets the next upstream of a route try.
func partedFault(field string, a mail.Address) *fault {
	return &fault{stage: mail.StageMail, class: mail.BackPressure, ours: true,
		reply: mail.R(451, "4.3.3", "the %s field names %s, who has this message already or gets it by another "+
			"upstream. Microsoft Graph would send it again: "+
			"it waits for an SMTP upstream; one route must have all recipients of a message that goes by Graph", field,
			mail.Printable(a.String()))}
}

func messageFault(code int, enhanced, format string, args ...any) *fault {
	return &fault{stage: mail.StageMail, class: mail.MessageFault, ours: true,
		reply: mail.R(code, enhanced, format, args...)}
}

// readAddressees reads an address list (RFC 5322 §3.4) so that no reader can find somebody in it who is neither in sure
// nor in possible: whatever holds an "@" outside quotes and comments is looked at.
func readAddressees(value string) addressees {
	var who addressees
	var e entry
	for i := 0; i < len(value); {
		switch c := value[i]; c {
		case '"':
			n := quoted(value[i:])
			e.text = append(e.text, value[i:i+n]...)
			e.quotes = true
			i += n
			continue
		case '(':
			n := mail.CommentLen(value[i:])
			if n == 0 {
				who.unclear = value[i:]
				return who
			}
			e.text = append(e.text, ' ')
			i += n
			continue
		case '<':
			n := strings.IndexByte(value[i:], '>')
			if n < 0 {
				who.unclear = value[i:]
				return who
			}
			e.angles = append(e.angles, trimmed(value, i+1, i+n))
			i += n + 1
			continue
		case ',', ';': // Outlook's habit; the end of a group too
			e.finish(&who, trimmed(value, e.from, i))
			e.from = i + 1
		case ':': // what stood before is the name of a group
			e.group(&who)
			e.from = i + 1
		default:
			e.text = append(e.text, c)
		}
		i++
	}
	e.finish(&who, trimmed(value, e.from, len(value)))
	return who
}

// trimmed is the part of a value between two places, without white space at its ends.
func trimmed(value string, from, to int) span {
	for from < to && (value[from] == ' ' || value[from] == '\t') {
		from++
	}
	for to > from && (value[to-1] == ' ' || value[to-1] == '\t') {
		to--
	}
	return span{from, to, value[from:to]}
}

// entry is what stands between two commas.
type entry struct {
	text   []byte // without comments and angle brackets
	quotes bool
	angles []span
	from   int // where it begins in the value
}

// finish takes the entry over and begins the next.
func (e *entry) finish(who *addressees, at span) {
	text := strings.Trim(string(e.text), " \t")
	switch {
	case len(e.angles) == 0:
		e.bare(who, text, at)
	default:
		for _, a := range e.angles {
			e.angle(who, a)
		}
		who.look(unquoted(text))
	}
	*e = entry{text: e.text[:0]}
}

func (e *entry) angle(who *addressees, at span) {
	a, err := parseRooted(at.text)
	switch {
	case at.text == "":
	case err != nil && len(e.angles) == 1 && isLocal(at.text):
		who.locals = append(who.locals, at)
	case err != nil:
		who.doubt(at.text)
	case len(e.angles) > 1:
		who.possible = append(who.possible, a)
	default:
		who.sure, who.at = append(who.sure, a), append(who.at, at)
	}
}

// bare is an entry without angle brackets: an address, or a name.
func (e *entry) bare(who *addressees, text string, at span) {
	if text == "" {
		return
	}
	if a, err := parseRooted(text); err == nil {
		at.text = text
		who.sure, who.at = append(who.sure, a), append(who.at, at)
		return
	}
	if isLocal(text) && !undisclosed(text) {
		at.text = text
		who.locals = append(who.locals, at)
		return
	}
	if !strings.Contains(unquoted(text), "@") && !undisclosed(text) {
		who.doubt(text) // Exchange might find the name in its address book
		return
	}
	who.look(unquoted(text))
}

// group ends the name of a group. An address in it is one that some reader may find.
func (e *entry) group(who *addressees) {
	for _, a := range e.angles {
		e.angle(who, a)
	}
	who.look(unquoted(string(e.text)))
	*e = entry{text: e.text[:0]}
}

// look finds what could be an address in text that should hold none.
func (who *addressees) look(text string) {
	for word := range strings.FieldsSeq(text) {
		if !strings.Contains(word, "@") {
			continue
		}
		// as Outlook writes an address that is its own name
		if n := len(word); n > 2 && word[0] == '\'' && word[n-1] == '\'' {
			word = word[1 : n-1]
		}
		if a, err := mail.ParseAddress(word); err == nil {
			who.possible = append(who.possible, a)
		} else {
			who.doubt(word)
		}
	}
}

func (who *addressees) doubt(text string) {
	if who.unclear == "" {
		who.unclear = text
	}
}

// undisclosed knows what people put into To when they want nobody in it.
func undisclosed(text string) bool {
	return strings.HasPrefix(strings.ToLower(strings.Trim(text, `"' `)), "undisclosed")
}

// quoted returns the length of the quoted string at the beginning of s; all of it if it has no end.
func quoted(s string) int { return cmp.Or(mail.QuotedLen(s), len(s)) }

// unquoted blanks the quoted strings out. One without end is kept: readers differ about it.
func unquoted(s string) string {
	if !strings.Contains(s, `"`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		n := 1
		if s[i] == '"' {
			n = quoted(s[i:])
			if n == 1 || s[i+n-1] != '"' {
				return string(append(b, strings.ReplaceAll(s[i:], `"`, " ")...))
			}
			b = append(b, ' ')
		} else {
			b = append(b, s[i])
		}
		i += n
	}
	return string(b)
}

// bccField writes one address a line.
func bccField(recipients []mail.Recipient, blind []int) mail.Field {
	var b bytes.Buffer
	b.WriteString("Bcc:")
	for n, i := range blind {
		if n > 0 {
			b.WriteString(",\r\n")
		}
		b.WriteByte(' ')
		to, _ := recipients[i].To.ASCII() // where it has such a form
		b.WriteString(to.String())
	}
	b.WriteString("\r\n")
	return mail.Field{Name: "Bcc", Raw: b.Bytes()}
}
