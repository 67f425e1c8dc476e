package mangen

import (
	"bufio"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Configuration returns the page of the configuration file, of its annotated form: the comment at its head; then
// tables and keys, each with a comment beside it that goes on in the lines below. A table or key may be commented out.
func Configuration(annotated, name string, date time.Time) (Page, error) {
	tables, err := readTables(annotated)
	if err != nil {
		return Page{}, err
	}
	r := newPage(date, name, "5", "configuration of Postern")
	r.macro("Sh", "DESCRIPTION")
	head := tables[0]
	r.fill(head.about)
	r.keys(head.keys)
	for _, t := range tables[1:] {
		r.macro("Ss", t.title())
		r.fill(t.about)
		r.keys(t.keys)
	}
	r.macro("Sh", "FILES")
	r.text("The file that --config or POSTERN_CONFIG names, then ./" + name + ", then /etc/postern/" + name + ".")
	r.macro("Sh", "SEE ALSO")
	r.WriteString(".Xr postern 1 ,\n.Xr postern-check 1 ,\n.Xr postern-settings 1\n")
	return Page{name + ".5", r.String()}, nil
}

func (r *roff) keys(keys []*entry) {
	if len(keys) == 0 {
		return
	}
	r.WriteString(".Bl -tag -width Ds\n")
	for _, k := range keys {
		r.WriteString(".It Li " + argument(k.what) + "\n")
		r.fill(k.about)
	}
	r.WriteString(".El\n")
}

// entry is a key with its value, or the name of a table, and the words about it.
type entry struct {
	what  string
	about []string
}

// table is one part of the file: first what stands before any table.
type table struct {
	entry
	keys []*entry
}

// title is the name of a table, with its type where the file shows one for each type.
func (t *table) title() string {
	if len(t.keys) > 0 && strings.HasPrefix(t.keys[0].what, "type = ") {
		return t.what + " " + t.keys[0].what
	}
	return t.what
}

var (
	tableLine = regexp.MustCompile(`^(?:# )?(\[\[?[a-z0-9_.]+\]\]?)\s*(?:#(.*))?$`)
	keyLine   = regexp.MustCompile(`^(?:# )?([a-z0-9_]+ = (?:"[^"]*"|\[[^\]]*\]|[a-z0-9]+))\s*(?:#(.*))?$`)
	more      = regexp.MustCompile(`^[ #]*#(.*)$`)
)

func readTables(annotated string) ([]*table, error) {
	tables := []*table{new(table)}
	last := &tables[0].entry
	lines := bufio.NewScanner(strings.NewReader(annotated))
	for n := 1; lines.Scan(); n++ {
		line, t := lines.Text(), tables[len(tables)-1]
		comment := ""
		if m := tableLine.FindStringSubmatch(line); m != nil {
			t, comment = &table{entry: entry{what: m[1]}}, m[2]
			tables, last = append(tables, t), &t.entry
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			last, comment = &entry{what: m[1]}, m[2]
			t.keys = append(t.keys, last)
		} else if m := more.FindStringSubmatch(line); m != nil {
			comment = m[1]
		} else if line != "" {
			return nil, fmt.Errorf("line %d is neither a table, nor a key, nor a comment: %s", n, line)
		}
		last.about = append(last.about, strings.Fields(comment)...)
	}
	return tables, lines.Err()
}
