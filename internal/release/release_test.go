package release

import (
	"os"
	"slices"
	"strings"
	"testing"

	"postern"
)

const changelog = `# Changelog

Words.

## Unreleased

### Added

## 0.10.0 - 2027-02-01

### Added
- One thing
  in two lines.

### Configuration
- key.

## 0.9.0 - 2026-11-29

### Added
- All.
`

func TestParse(t *testing.T) {
	all, err := parse(changelog)
	if err != nil || len(all) != 2 || all[0].Number != "0.10.0" || all[1].Date != "2026-11-29" {
		t.Fatalf("%+v, %v", all, err)
	}
	want := []Section{{"Added", "- One thing\n  in two lines.\n"}, {Configuration, "- key.\n"}}
	if !slices.Equal(all[0].Sections, want) {
		t.Errorf("%+v", all[0].Sections)
	}
	if n := numberOf(all); n != "0.10.0" {
		t.Error(n)
	}
	all, err = parse(strings.Replace(changelog, "### Added\n", "### Added\n- More.\n", 1))
	if err != nil || numberOf(all) != "0.10.1-dev" {
		t.Errorf("%+v, %v", all, err)
	}
	for want, text := range map[string]string{
		"has no release":           "# Changelog\n\n## Unreleased\n\n### Added\n- All.\n",
		`"## 1.0 - 2027-02-01"`:    strings.Replace(changelog, "0.10.0", "1.0", 1),
		"order":                    changelog + "\n## 0.9.1 - 2026-12-01\n\n### Fixed\n- x\n",
		"before the first section": "## 1.0.0 - 2027-02-01\ntext\n",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestSince(t *testing.T) {
	all, err := parse(strings.Replace(changelog, "### Added\n", "### Added\n- More.\n", 1))
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		"0.9.0": ",0.10.0", "v0.10.0": "", "0.10.1-dev": "", "0.10.0~pre20261128093000": ",0.10.0",
		"0.10.0_pre20261128093000": ",0.10.0", "0.8.9": ",0.10.0,0.9.0", "1.0.0": "",
	} {
		after, err := since(all, from)
		var got []string
		for _, r := range after {
			got = append(got, r.Number)
		}
		if err != nil || strings.Join(got, ",") != want {
			t.Errorf("since %s: %q, %v", from, got, err)
		}
	}
	for _, wrong := range []string{"", "1", "1.0", "1.0.x", "newest", "1.0.0 ", "9999999.0.0"} {
		if _, err := since(all, wrong); err == nil || !strings.Contains(err.Error(), "write it like 0.9.0") {
			t.Errorf("since %q: %v", wrong, err)
		}
	}
	if Older("0.9.1-dev", "v0.9.1") != true || Older("0.10.0", "0.9.0") || Older("(devel)", "0.9.0") {
		t.Error("the order of versions is wrong")
	}
}

// The version of the program is the one that the changelog of this tree says.
func TestVersionIsOfTheChangelog(t *testing.T) {
	file, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil || string(file) != postern.Changelog {
		t.Fatalf("the program has another CHANGELOG.md than the tree (%v)", err)
	}
	all, err := parse(postern.Changelog)
	if err != nil {
		t.Fatal(err)
	}
	if _, early, ok := split(Number()); !ok || early != (all[0].Number == "") {
		t.Errorf("version %s", Number())
	}
	if version == "" && Version() != "v"+Number() {
		t.Errorf("%s, %s", Version(), Number())
	}
}

func FuzzParse(f *testing.F) {
	f.Add(changelog, "0.9.0")
	f.Add("## 1.0.0 - 2027-02-01\n", "0.0.0-")
	f.Fuzz(func(t *testing.T, text, from string) {
		all, err := parse(text)
		if err != nil {
			return
		}
		if _, _, ok := split(numberOf(all)); !ok {
			t.Errorf("%q", numberOf(all))
		}
		after, err := since(all, from)
		if err == nil && len(after) > len(all) {
			t.Errorf("%d of %d", len(after), len(all))
		}
	})
}
