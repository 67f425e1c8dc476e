package console

import (
	"embed"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/message/catalog"
)

//go:embed words/*.txt
var wordFiles embed.FS

// key is a text in English as the catalogue has it, with the verbs of package fmt. Where it has a form for one, the key
// is the other form.
type key string

// languages are those of the catalogue, the one for everybody else first.
var languages = []language.Tag{language.English, language.German}

var matcher = language.NewMatcher(languages)

// knownKeys are all keys of the catalogue.
var knownKeys, catalogue = loadWords()

// entry is a text in both languages, each with its form for one, if it has one.
type entry struct{ english, german []string }

// loadWords reads the catalogue: two lines for each text, English and German, and an empty line. "#" begins a comment.
// "a | b" are the forms for one and for others, by the first argument.
func loadWords() (map[key]bool, catalog.Catalog) {
	known, b := map[key]bool{}, catalog.NewBuilder(catalog.Fallback(language.English))
	seen := map[string]entry{} // pages may share a text, if they say the same
	names, _ := fs.Glob(wordFiles, "words/*.txt")
	for _, name := range names {
		data, err := wordFiles.ReadFile(name)
		if err != nil {
			panic(err)
		}
		entries, err := parseWords(string(data))
		if err != nil {
			panic(fmt.Sprintf("%s: %v", name, err))
		}
		for _, e := range entries {
			k := e.english[len(e.english)-1]
			if before, twice := seen[k]; twice && !reflect.DeepEqual(before, e) {
				panic(fmt.Sprintf("%s: %q stands twice in the catalogue, with other words", name, k))
			}
			known[key(k)], seen[k] = true, e
			set(b, language.English, k, e.english)
			set(b, language.German, k, e.german)
		}
	}
	return known, b
}

func set(b *catalog.Builder, tag language.Tag, k string, forms []string) {
	var err error
	if len(forms) == 1 {
		err = b.SetString(tag, k, forms[0])
	} else {
		err = b.Set(tag, k, plural.Selectf(1, "%d", plural.One, forms[0], plural.Other, forms[1]))
	}
	if err != nil {
		panic(err)
	}
}

func parseWords(text string) (entries []entry, err error) {
	for block := range strings.SplitSeq(text, "\n\n") {
		var lines []string
		for line := range strings.Lines(block) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				lines = append(lines, line)
			}
		}
		switch {
		case len(lines) == 0:
			continue
		case len(lines) != 2:
			return nil, fmt.Errorf("%q: want a line of English and a line of German, has %d", lines[0], len(lines))
		}
		e := entry{strings.Split(lines[0], " | "), strings.Split(lines[1], " | ")}
		if len(e.english) != len(e.german) || len(e.english) > 2 {
			return nil, fmt.Errorf("%q: the languages have another number of forms", lines[0])
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// words speak one language.
type words struct {
	lang    string // "en", "de"
	printer *message.Printer
	clock   clock
}

// unknownKey is told of what the catalogue lacks; it is shown in English. Tests fail by it.
var unknownKey = func(key) {}

// t is a text of the catalogue.
func (w *words) t(k key, args ...any) string {
	if !knownKeys[k] {
		unknownKey(k)
	}
	text := w.printer.Sprintf(message.Key(string(k), string(k)), args...)
	if strings.HasSuffix(text, "..") && !strings.HasSuffix(text, "...") { // an abbreviation ends the sentence
		text = text[:len(text)-1]
	}
	return text
}

var speakers = func() []*words {
	all := make([]*words, len(languages))
	for i, tag := range languages {
		base, _ := tag.Base()
		all[i] = &words{base.String(), message.NewPrinter(tag, message.Catalog(catalogue)), clocks[base.String()]}
	}
	return all
}()

// maxAccept bounds how much of an Accept-Language field is read, in octets.
const maxAccept = 500

// wordsFor chooses the language by an Accept-Language field.
func wordsFor(accept string) *words {
	if len(accept) > maxAccept {
		return speakers[0]
	}
	wanted, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return speakers[0]
	}
	_, i, _ := matcher.Match(wanted...)
	return speakers[i]
}
