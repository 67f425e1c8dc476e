package console

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What doctor, DNS checks, alerts and advice say is English text, in the store and in answers of the daemon too. For
// other languages the catalogue in said/ has each of their sentences with {1} for what varies; a text is recognised
// sentence by sentence, and what varies is put into the other language's sentence. What stands in {1} may be a saying
// itself; {1=} is a name, a number or a fault of a library, and {1!} is what others said, which may be any number of
// sentences: both stay as they are. A text that is not recognised as a whole is shown in English and marked as such.

//go:embed said/*.txt
var saidFiles embed.FS

// sayings are sentences in German, by what they are in English.
type sayings struct {
	all   []saying // those with most text of their own first
	same  map[string]string
	heads *regexp.Regexp // behind it, up to the end, is what others said
}

// saying is one sentence, or a part of one.
type saying struct {
	pieces  []string // of the English, around its holes
	holes   []string // their names, with their marks
	german  string
	part    bool // stands within a sentence only
	letters int
}

var hole = regexp.MustCompile(`\{(\w+[=!]?)\}`)

var german = loadSayings()

func loadSayings() *sayings {
	s := &sayings{same: map[string]string{}}
	names, _ := fs.Glob(saidFiles, "said/*.txt")
	for _, name := range names {
		data, err := saidFiles.ReadFile(name)
		if err != nil {
			panic(err)
		}
		for _, pair := range pairsOf(string(data)) {
			if len(pair) != 2 {
				panic(fmt.Sprintf("%s: %q: want a line of English and a line of German", name, pair))
			}
			s.add(pair[0], pair[1])
		}
	}
	s.heads = headsOf(s.all)
	slices.SortStableFunc(s.all, func(a, b saying) int { return cmp.Compare(b.letters, a.letters) })
	return s
}

// pairsOf reads blocks of lines; "# " begins a comment.
func pairsOf(text string) (pairs [][]string) {
	for block := range strings.SplitSeq(text, "\n\n") {
		var lines []string
		for line := range strings.Lines(block) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "# ") {
				lines = append(lines, line)
			}
		}
		if len(lines) > 0 {
			pairs = append(pairs, lines)
		}
	}
	return pairs
}

func (s *sayings) add(english, german string) {
	if !hole.MatchString(english) {
		s.same[english] = german
	}
	one := saying{pieces: hole.Split(english, -1), german: german, part: isPart(english)}
	for _, m := range hole.FindAllStringSubmatch(english, -1) {
		one.holes = append(one.holes, m[1])
	}
	for _, p := range one.pieces {
		one.letters += len(p)
	}
	s.all = append(s.all, one)
}

// headsOf finds where a saying begins that ends with what others said.
func headsOf(all []saying) *regexp.Regexp {
	var heads []string
	for _, one := range all {
		last := len(one.holes) - 1
		if last < 0 || one.pieces[last+1] != "" || !strings.HasSuffix(one.holes[last], "!") {
			continue
		}
		head := ""
		for i, piece := range one.pieces[:last+1] {
			if i == 1 && one.pieces[0] == "" {
				head = `\S+` // a name at the beginning
			} else if i > 0 {
				head += ".*?"
			}
			head += regexp.QuoteMeta(piece)
		}
		heads = append(heads, head)
	}
	return regexp.MustCompile(strings.Join(heads, "|"))
}

// ours is how much of a text comes before what others said in it.
func (s *sayings) ours(text string) int {
	if at := s.heads.FindStringIndex(text); at != nil {
		return at[0]
	}
	return len(text)
}

// fits reports whether no name has what others said in it.
func (s *sayings) fits(found map[string]string) bool {
	for name, value := range found {
		if strings.HasSuffix(name, "=") && s.heads.MatchString(value) {
			return false
		}
	}
	return true
}

// isPart reports whether a text stands within sentences only: it has neither their beginning nor their end.
func isPart(text string) bool {
	first := text[0]
	switch {
	case strings.HasSuffix(text, "."), first == '{' && strings.Contains(text, ": {"), neutral.MatchString(text):
		return false
	}
	return first >= 'a' && first <= 'z' || first >= '0' && first <= '9' || first == '{'
}

// fill finds what stands in the holes of a text; false if it is another sentence.
func (s *saying) fill(text string) (map[string]string, bool) {
	last := s.pieces[len(s.pieces)-1]
	rest, ok := strings.CutPrefix(text, s.pieces[0])
	if !ok || len(s.pieces) == 1 {
		return nil, ok && rest == ""
	}
	if rest, ok = strings.CutSuffix(rest, last); !ok {
		return nil, false
	}
	found := make(map[string]string, len(s.holes))
	for i, name := range s.holes {
		value := rest
		if i < len(s.holes)-1 {
			if value, rest, ok = strings.Cut(rest, s.pieces[i+1]); !ok {
				return nil, false
			}
		}
		if before, twice := found[name]; twice && before != value {
			return nil, false
		}
		found[name] = value
	}
	return found, true
}

// neutral are lines that are the same in every language: commands, lines of a configuration, records, fingerprints.
var neutral = regexp.MustCompile(`^(postern|sudo|systemctl|timedatectl|journalctl|chmod|chown|dmesg|df|du|ss) .*[^.]$` +
	`|^\[\[?\w+\]\]?$|^[a-z_]+ = .*$|^[\w.*-]+\.? (\d+ )?IN (TXT|CNAME|MX|A|AAAA) .*$|^([0-9A-F]{2}:){4,}.*$|^\S*$` +
	`|^See (https://|docs/)\S+$`)

const (
	maxSaid      = 4000 // octets of a text that is put into another language
	maxSentences = 40   // of a line
	maxTries     = 1000 // comparisons with all sentences, for a line; each takes some 10 µs
)

// say puts a text into German, line by line; false if some of it is not known.
func (s *sayings) say(text string) (string, bool) {
	if len(text) > maxSaid {
		return text, false
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		said, ok := s.warned(line)
		if !ok {
			said, ok = (&speech{sayings: s, failed: map[int]bool{}}).line(line, maxSentences)
		}
		if !ok {
			return text, false
		}
		lines[i] = said
	}
	return strings.Join(lines, "\n"), true
}

// lineOfConfig is where a warning about relay.toml is: its line and its key, which stay.
var lineOfConfig = regexp.MustCompile(`^\S+?(:\d+)?: [a-z_]+[\w.\[\]]*: `)

// warned says a warning about relay.toml.
func (s *sayings) warned(line string) (string, bool) {
	where := lineOfConfig.FindString(line)
	if where == "" {
		return "", false
	}
	said, ok := (&speech{sayings: s, failed: map[int]bool{}}).clause(line[len(where):])
	return where + said, ok
}

// history says what an event of the trace says beside a reply: clauses with semicolons between them, as far as they
// are known. What others said may stand behind, so that from the first on that is not known all stay.
func (s *sayings) history(text string) (said, rest string) {
	if len(text) > maxSaid {
		return "", text
	}
	var known []string
	for rest = text; rest != ""; {
		clause, more, _ := strings.Cut(rest, "; ")
		one, ok := (&speech{sayings: s, failed: map[int]bool{}}).clause(clause)
		if !ok {
			break
		}
		known, rest = append(known, one), more
	}
	return capital(strings.Join(known, "; ")), rest
}

// speech is one line that is put into German.
type speech struct {
	*sayings
	failed map[int]bool // lengths of ends that are not known
	tries  int
	open   bool // the saying that was found last begins with a hole,
	named  bool // its German with what stood there: the case of a name stays
}

// line says one line: as one sentence, else as several, else as one whose holes hold sentences.
func (s *speech) line(text string, left int) (string, bool) {
	text = strings.TrimSpace(text)
	if left == 0 || s.failed[len(text)] {
		return "", false
	}
	if said, ok := s.sentence(text, false); ok {
		return said, true
	}
	if neutral.MatchString(text) {
		return text, true
	}
	for i := min(s.ours(text), len(text)-1); i > 0; i-- {
		if text[i] != ' ' || text[i+1] >= 'a' && text[i+1] <= 'z' && !strings.ContainsRune(".:?!", rune(text[i-1])) {
			continue
		}
		said, ok := s.sentence(text[:i], false)
		if !ok {
			continue
		}
		if rest, ok := s.line(text[i+1:], left-1); ok {
			return said + " " + rest, true
		}
	}
	if said, ok := s.sentence(text, true); ok {
		return said, true
	}
	if said, ok := s.clause(text); ok {
		return said, true
	}
	s.failed[len(text)] = true
	return "", false
}

// sentence says one sentence; with long, its holes may hold several.
func (s *speech) sentence(text string, long bool) (string, bool) {
	if s.tries++; s.tries > maxTries {
		return "", false
	}
	if said, ok := s.same[text]; ok {
		s.open, s.named = false, false
		return said, true
	}
	if strings.Contains(text, "; ") {
		if said, ok := s.reasons(text); ok {
			return said, true
		}
	}
	for i := range s.all {
		one := &s.all[i]
		if one.part || len(one.holes) == 0 {
			continue
		}
		if found, ok := one.fill(text); ok && (long || !hasSentences(found)) && s.fits(found) {
			return s.filled(one, found), true
		}
	}
	if !long {
		return "", false
	}
	return s.reasons(text)
}

// hasSentences reports whether the end of a sentence stands within a hole.
func hasSentences(found map[string]string) bool {
	for name, value := range found {
		if !strings.HasSuffix(name, "!") && strings.Contains(value, ". ") {
			return true
		}
	}
	return false
}

// filled is the German of a saying, with its holes filled.
func (s *speech) filled(one *saying, found map[string]string) string {
	named := strings.HasPrefix(one.german, "{")
	said := hole.ReplaceAllStringFunc(one.german, func(name string) string {
		name = name[1 : len(name)-1]
		if strings.HasSuffix(name, "=") || strings.HasSuffix(name, "!") {
			return found[name]
		}
		said := s.within(found[name])
		named = named && (said == found[name] || !strings.HasPrefix(one.german, "{"+name+"}"))
		return said
	})
	s.open, s.named = one.pieces[0] == "", named
	return said
}

// within says what stands in a hole that may hold a saying.
func (s *speech) within(text string) string {
	if strings.HasSuffix(text, ".") || strings.Contains(text, ". ") {
		if said, ok := s.line(text, maxSentences); ok {
			return said
		}
	}
	if said, ok := s.clause(text); ok {
		return said
	}
	if ended := strings.TrimSuffix(text, "."); ended != text {
		if said, ok := s.clause(ended); ok {
			return said + "."
		}
	}
	return text
}

// clause says a part of a sentence.
func (s *speech) clause(text string) (string, bool) {
	if said, ok := s.same[text]; ok {
		s.open, s.named = false, false
		return said, true
	}
	if s.tries++; s.tries > maxTries || !strings.Contains(text, " ") {
		return "", false
	}
	for i := range s.all {
		one := &s.all[i]
		if found, ok := one.fill(text); ok && len(one.holes) > 0 && s.fits(found) {
			return s.filled(one, found), true
		}
	}
	if strings.HasSuffix(text, ".") {
		return "", false
	}
	return s.lowered(text)
}

// lowered says a sentence that was made a part of another. What stands in a hole keeps its case.
func (s *speech) lowered(text string) (string, bool) {
	said, ok := s.sentence(capital(text)+".", false)
	if ok && s.open {
		said, ok = s.sentence(text+".", false)
	}
	if first, _ := utf8.DecodeRuneInString(text); ok && !s.named && unicode.IsLower(first) {
		said = inCase(said, unicode.ToLower)
	}
	return strings.TrimSuffix(said, "."), ok
}

// reasons says a sentence that was made of clauses with semicolons between them.
func (s *speech) reasons(text string) (string, bool) {
	text, ended := strings.CutSuffix(text, ".")
	if !ended {
		return "", false
	}
	clauses, named := strings.Split(text, "; "), false
	for i, one := range clauses {
		said, ok := s.clause(one)
		if !ok && i == 0 { // it was given a capital letter
			said, ok = s.clause(inCase(one, unicode.ToLower))
		}
		if !ok {
			return "", false
		}
		if clauses[i] = said; i == 0 {
			named = s.named
		}
	}
	if s.open, s.named = false, named; named {
		return strings.Join(clauses, "; ") + ".", true
	}
	return capital(strings.Join(clauses, "; ") + "."), true
}

// capital begins a text with a capital letter.
func capital(text string) string { return inCase(text, unicode.ToUpper) }

// inCase changes the case of the first letter.
func inCase(text string, to func(rune) rune) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 || first == utf8.RuneError {
		return text
	}
	return string(to(first)) + text[size:]
}

// Said is a text of another package in the visitor's language.
type Said struct {
	Text string
	Lang string // "en" where it is not the page's language, else ""
}

// said puts a text of doctor, DNS checks, alerts or advice into the visitor's language.
func (w *words) said(text string) Said {
	if w.lang != "de" {
		return Said{Text: text}
	}
	if german, ok := german.say(text); ok {
		return Said{Text: german}
	}
	return Said{text, "en"}
}

// history puts what an event says beside a reply into the visitor's language, as far as it is known: in two parts.
func (w *words) history(text string) []Said {
	if w.lang != "de" || text == "" {
		return []Said{{Text: text}}
	}
	said, rest := german.history(text)
	switch {
	case rest == "":
		return []Said{{Text: said}}
	case said == "":
		return []Said{w.said(rest)}
	}
	return []Said{{Text: said + "; "}, {rest, "en"}}
}
