package trace

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of the words of an event. What is longer is cut, on both sides of a search alike.
const (
	maxTerm  = 255  // octets of a word
	maxTerms = 400  // words of one event, repetitions included
	maxText  = 4096 // octets of one field that are read
)

// Terms calls emit for each word of an event, in lower case; some come more than once. They are
//
//   - what stands between spaces, quotes, brackets or commas, without punctuation around it: an address, a Message-ID,
//     an id, a word;
//   - of "key=value", "a/b" and "a:b" the parts too;
//   - of an address its local part, its domain, and each parent of the domain that has a dot;
//   - each run of letters and digits in all that, of two letters or three digits at least;
//   - of the client's address its network (/24, /64), also as "192.0.2".
func (e *Event) Terms(emit func(term string)) {
	t := termWriter{emit: emit, left: maxTerms}
	t.emitOnly(e.ID)
	if e.Session != e.ID {
		t.emitOnly(e.Session)
	}
	if e.Reply.Code != 0 {
		t.put(strconv.Itoa(e.Reply.Code))
	}
	t.put(e.Reply.Enhanced)
	t.put(string(e.Kind))
	t.client(e.Client)
	t.text(e.From)
	t.text(e.To)
	if e.Login != e.From {
		t.text(e.Login)
	}
	if e.Author != e.From && e.Author != e.Login {
		t.text(e.Author)
	}
	t.text(e.MessageID)
	t.text(e.Upstream)
	if e.Identity != e.From && e.Identity != e.Login {
		t.text(e.Identity)
	}
	t.text(e.Listener)
	if e.Class != string(e.Kind) {
		t.text(e.Class)
	}
	t.text(e.Rule)
	t.text(e.Reply.Text)
	t.text(e.Detail)
}

// HasTerms reports whether an event has every one of some words, as Search.Terms gives them.
func (e *Event) HasTerms(terms []string) bool {
	if len(terms) == 0 {
		return true
	}
	missing := uint(1)<<len(terms) - 1
	e.Terms(func(term string) {
		for i, want := range terms {
			if term == want {
				missing &^= 1 << i
			}
		}
	})
	return missing == 0
}

// queryTerms turns what a person typed into words, each once.
func queryTerms(query string) (terms []string) {
	add := func(term string) {
		if keeps(term) && !slices.Contains(terms, term) {
			terms = append(terms, term)
		}
	}
	eachChunk(strings.ToLower(query), func(chunk string) {
		if place, ok := parsePlace(chunk); ok {
			add(place)
			return
		}
		add(cut(strings.TrimFunc(chunk, isEdge)))
	})
	return terms
}

// parsePlace writes an address or a network as events have it.
func parsePlace(s string) (string, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone("").String(), true
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked().String(), err == nil
}

// termWriter emits words until they are too many.
type termWriter struct {
	emit func(string)
	left int
}

func (t *termWriter) put(term string) {
	if term == "" || t.left == 0 {
		return
	}
	t.left--
	t.emit(cut(term))
}

// emitOnly emits an id of ours, which has no parts.
func (t *termWriter) emitOnly(id string) {
	id = strings.TrimFunc(strings.ToLower(bounded(id)), isEdge)
	if keeps(id) {
		t.put(id)
	}
}

func (t *termWriter) client(s string) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if place, ok := parsePlace(s); ok { // of a summary
			t.put(place)
		} else {
			t.text(s)
		}
		return
	}
	a = a.Unmap().WithZone("")
	t.put(a.String())
	bits := 64
	if a.Is4() {
		bits = 24
	}
	net, _ := a.Prefix(bits)
	t.put(net.String())
	if a.Is4() {
		whole := a.String()
		t.put(whole[:strings.LastIndexByte(whole, '.')])
	}
}

// text emits the words of a field.
func (t *termWriter) text(s string) {
	if s == "" {
		return
	}
	eachChunk(strings.ToLower(bounded(s)), func(chunk string) {
		if t.left > 0 {
			t.chunk(chunk)
		}
	})
}

func (t *termWriter) chunk(chunk string) {
	chunk = strings.TrimFunc(chunk, isEdge)
	if !keeps(chunk) {
		return
	}
	t.put(chunk)
	at, parts, simple := false, false, true
	for i := range len(chunk) {
		switch c := chunk[i]; {
		case c == '@':
			at, simple = true, false
		case c == '=' || c == ':' || c == '/':
			parts, simple = true, false
		case !isWord(c):
			simple = false
		}
	}
	if simple {
		return
	}
	switch {
	case parts:
		for piece := range strings.FieldsFuncSeq(chunk, isJoint) {
			if piece = strings.TrimFunc(piece, isEdge); !keeps(piece) {
				continue
			}
			if !isRun(piece) { // runs follow
				t.put(piece)
			}
			if at {
				t.address(piece)
			}
		}
	case at:
		t.address(chunk)
	}
	t.runs(chunk)
}

// address emits the parts of an address that are no runs.
func (t *termWriter) address(s string) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return
	}
	if local := strings.TrimFunc(s[:at], isEdge); keeps(local) && !isRun(local) {
		t.put(local)
	}
	for domain := strings.TrimFunc(s[at+1:], isEdge); ; {
		dot := strings.IndexByte(domain, '.')
		if dot < 0 {
			return
		}
		t.put(domain)
		domain = strings.TrimLeft(domain[dot+1:], ".")
	}
}

// runs emits the runs of letters and digits.
func (t *termWriter) runs(s string) {
	start := -1
	for i := 0; i <= len(s); i++ {
		switch {
		case i < len(s) && isWord(s[i]):
			if start < 0 {
				start = i
			}
		case start >= 0:
			if run := s[start:i]; keeps(run) {
				t.put(run)
			}
			start = -1
		}
	}
}

// keeps reports whether a word is worth being looked for: two octets with a letter in them, or three.
func keeps(s string) bool {
	return len(s) > 2 || len(s) == 2 && (s[0] > '9' || s[1] > '9')
}

// eachChunk splits a text at white space, controls and what encloses.
func eachChunk(s string, yield func(string)) {
	start := -1
	for i := 0; i <= len(s); i++ {
		switch {
		case i < len(s) && !separates[s[i]]:
			if start < 0 {
				start = i
			}
		case start >= 0:
			yield(s[start:i])
			start = -1
		}
	}
}

var separates = func() (set [256]bool) {
	for c := range 0x21 {
		set[c] = true
	}
	for _, c := range []byte("<>()[]{}\"'`,;|\x7f") {
		set[c] = true
	}
	return set
}()

// isWord: octets of a letter beyond ASCII are letters.
func isWord(c byte) bool {
	return c >= 0x80 || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z'
}

func isRun(s string) bool {
	for i := range len(s) {
		if !isWord(s[i]) {
			return false
		}
	}
	return true
}

func isEdge(r rune) bool { return r < 0x80 && !isWord(byte(r)) }

func isJoint(r rune) bool { return r == '=' || r == ':' || r == '/' }

func bounded(s string) string { return s[:min(len(s), maxText)] }

func cut(s string) string { return s[:min(len(s), maxTerm)] }
