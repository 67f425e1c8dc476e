package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/release"
)

// released are the relay.toml of all releases, as each described its keys, by number.
func released(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/releases/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".toml")] = string(data)
	}
	return all
}

func TestEveryReleaseIsKept(t *testing.T) {
	all := released(t)
	for _, r := range release.History() {
		if _, kept := all[r.Number]; !kept && r.Number != "" {
			t.Errorf("testdata/releases has no %s.toml: run scripts/release", r.Number)
		}
		delete(all, r.Number)
	}
	for number := range all {
		t.Errorf("%s is no release of CHANGELOG.md", number)
	}
}

// Every key that a release had is still one: with all of them written, nothing is unknown or of another kind.
func TestReleasedKeysStay(t *testing.T) {
	for number, text := range released(t) {
		lines := strings.Split(text, "\n")
		for i := 9; i < len(lines); i++ {
			lines[i] = strings.TrimPrefix(lines[i], "# ")
		}
		c := Parse("relay.toml", []byte(strings.Join(lines, "\n")))
		if !c.doc.parsed {
			t.Errorf("%s: %v", number, c.doc.problems)
		}
		for _, p := range c.doc.problems {
			if !strings.Contains(p.Message, "not in this version") {
				t.Errorf("%s: %v", number, p)
			}
		}
		if !c.doc.has("store.degraded") || !c.doc.has("tls.acme.rfc2136.algorithm") {
			t.Errorf("%s: keys that stand in a comment were not read", number)
		}
	}
}

// What a release said is right is right, with the files and secrets that it names.
func TestReleasedConfigurationLoads(t *testing.T) {
	for number, text := range released(t) {
		if _, err := Load(asExample(t, text)); err != nil {
			t.Errorf("%s: %v", number, err)
		}
	}
}

// Who upgrades is told of each key that is new, or has another default, since any release.
func TestChangedKeysAreTold(t *testing.T) {
	now := strings.Join(example(t), "\n")
	for number, text := range released(t) {
		after, err := release.Since(number)
		if err != nil {
			t.Fatal(err)
		}
		if untold := untoldKeys(text, now, after); len(untold) > 0 {
			t.Errorf("relay.toml has other keys or values than that of %s, and no section %q of CHANGELOG.md since "+
				"names `%s`; if %[1]s is not out yet, run scripts/release again", number,
				release.Configuration, strings.Join(untold, "`, `"))
		}
	}
}

func TestUntoldKeys(t *testing.T) {
	const before = "data_dir = \"a\"  # words\n[store]\n# url = \"x\"  # example\ngone = 1\n[[listener]]\nurl = \"y\"\n"
	now := strings.NewReplacer("\"a\"  # words", "\"b\" # others", "gone = 1\n", "", "\"y\"", "\"y\"\nadded = [1, 2]").
		Replace(before)
	told := []release.Release{{Sections: []release.Section{{Title: "Added", Text: "- `added`, `gone`\n"}}}}
	if got := fmt.Sprint(untoldKeys(before, now, told)); got != "[added data_dir gone]" {
		t.Error(got)
	}
	told[0].Sections[0].Title = release.Configuration
	if got := fmt.Sprint(untoldKeys(before, now, told)); got != "[data_dir]" {
		t.Error(got)
	}
	if got := untoldKeys(before, before, nil); len(got) > 0 {
		t.Error(got)
	}
}

// untoldKeys names the keys that differ between two annotated files and are not named in what a person is told.
func untoldKeys(before, now string, told []release.Release) (names []string) {
	words := ""
	for _, r := range told {
		for _, s := range r.Sections {
			if s.Title == release.Configuration {
				words += s.Text
			}
		}
	}
	was, is := keysOf(before), keysOf(now)
	for key, value := range is {
		if was[key] == value {
			delete(was, key)
		} else {
			was[key] = value
		}
	}
	for key := range was {
		name := key[strings.LastIndex(key, " ")+1:]
		if !strings.Contains(words, "`"+name+"`") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

var (
	tableLine = regexp.MustCompile(`^(?:# )?(\[\[?[a-z0-9_.]+\]\]?)\s*(?:#.*)?$`)
	keyLine   = regexp.MustCompile(`^(?:# )?([a-z0-9_]+) = ("[^"]*"|\[[^\]]*\]|[a-z0-9]+)\s*(?:#.*)?$`)
)

// keysOf are the keys of an annotated file with what it says of their values, by the table and the key.
func keysOf(annotated string) map[string]string {
	all, table := map[string]string{}, ""
	for line := range strings.Lines(annotated) {
		line = strings.TrimSuffix(line, "\n")
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			all[table+" "+m[1]] += m[2] + "\n" // a table may stand there more than once
		}
	}
	return all
}
