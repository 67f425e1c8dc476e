// Package release says which version of Postern this is and what each version changed. CHANGELOG.md is the one source
// of both: its newest release, or what comes after it while lines stand under "Unreleased". See
// docs/decisions/0057-releases.md.
package release

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"postern"
)

// Configuration is the section of a release about relay.toml.
const Configuration = "Configuration"

// Release is what a version changed.
type Release struct {
	Number   string    `json:"version"` // such as 0.9.0; "" for what is not released
	Date     string    `json:"date"`    // such as 2026-11-29
	Sections []Section `json:"sections"`
}

// Section is a part of it, in Markdown.
type Section struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

// heading of a release, as Keep a Changelog has it.
var heading = regexp.MustCompile(`^## (?:Unreleased|(\d{1,5}\.\d{1,5}\.\d{1,5}) - (\d{4}-\d{2}-\d{2}))$`)

// History is what all versions changed, newest first; at its head, where there is something, what is not released.
var History = sync.OnceValue(func() []Release {
	all, err := parse(postern.Changelog)
	if err != nil {
		panic(err) // it is part of the program, and its tests read it
	}
	return all
})

// parse reads a changelog. Sections without text are left out, and so is what is not released if it has none.
func parse(changelog string) (all []Release, err error) {
	lines := bufio.NewScanner(strings.NewReader(changelog))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		title, isSection := strings.CutPrefix(line, "### ")
		switch m := heading.FindStringSubmatch(line); {
		case m != nil:
			all = append(all, Release{Number: m[1], Date: m[2]})
		case strings.HasPrefix(line, "## "):
			return nil, fmt.Errorf("CHANGELOG.md:%d: %q is neither Unreleased nor NUMBER - DATE", n, line)
		case len(all) == 0:
		case isSection:
			last := &all[len(all)-1]
			last.Sections = append(last.Sections, Section{Title: title})
		case line != "" && len(all[len(all)-1].Sections) == 0:
			return nil, fmt.Errorf("CHANGELOG.md:%d: text before the first section of its version", n)
		case line != "":
			sections := all[len(all)-1].Sections
			sections[len(sections)-1].Text += line + "\n"
		}
	}
	for i := range all {
		all[i].Sections = written(all[i].Sections)
	}
	if len(all) > 0 && all[0].Number == "" && len(all[0].Sections) == 0 {
		all = all[1:]
	}
	return all, errors.Join(lines.Err(), ordered(all))
}

func written(all []Section) (some []Section) {
	for _, s := range all {
		if s.Text != "" {
			some = append(some, s)
		}
	}
	return some
}

// ordered refuses a history that names no release, or not the newest first.
func ordered(all []Release) error {
	if len(all) == 0 || all[len(all)-1].Number == "" {
		return errors.New("CHANGELOG.md has no release")
	}
	for i, r := range all {
		if i > 0 && (r.Number == "" || all[i-1].Number != "" && compare(r.Number, all[i-1].Number) >= 0) {
			return fmt.Errorf("CHANGELOG.md: %q does not stand in order", r.Number)
		}
	}
	return nil
}

// version is what scripts/packages tells the linker (-X), where it knows more: the time of a commit between releases.
var version string

// Version is that of this program, such as v0.9.0, or v0.9.1-dev for something after 0.9.0.
func Version() string { return cmp.Or(version, "v"+Number()) }

// Number is the version as CHANGELOG.md has it: 0.9.0, or 0.9.1-dev for something after 0.9.0.
func Number() string { return numberOf(History()) }

func numberOf(all []Release) string {
	if all[0].Number != "" {
		return all[0].Number
	}
	n, _, _ := split(all[1].Number)
	return fmt.Sprintf("%d.%d.%d-dev", n[0], n[1], n[2]+1)
}

// Since is what has changed after a version, newest first: those of releases, of packages (0.9.1~pre20261128) and of
// this program are understood. An error says how it should be written.
func Since(number string) ([]Release, error) { return since(History(), number) }

func since(all []Release, number string) (after []Release, err error) {
	if _, _, ok := split(number); !ok {
		return nil, fmt.Errorf("%q is not a version: write it like %s", number, all[len(all)-1].Number)
	}
	for _, r := range all {
		if r.Number == "" || compare(r.Number, number) > 0 {
			after = append(after, r)
		}
	}
	return after, nil
}

// number is how releases, packages and Go write versions.
var number = regexp.MustCompile(`^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-~_+]([0-9A-Za-z.+~_-]*))?$`)

// split reads a version. early: it comes before the release of this number.
func split(s string) (n [3]int, early, ok bool) {
	m := number.FindStringSubmatch(s)
	if m == nil {
		return n, false, false
	}
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1])
	}
	return n, m[4] != "", true
}

// Older reports whether a version came before another. It does not tell apart those between the same two releases, and
// says no where either is not a version.
func Older(a, b string) bool { return compare(a, b) < 0 }

func compare(a, b string) int {
	x, xEarly, xOK := split(a)
	y, yEarly, yOK := split(b)
	if !xOK || !yOK {
		return 0
	}
	for i := range x {
		if c := cmp.Compare(x[i], y[i]); c != 0 {
			return c
		}
	}
	switch {
	case xEarly == yEarly:
		return 0
	case xEarly:
		return -1
	}
	return 1
}
