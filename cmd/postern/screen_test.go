package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var tableHeading = []string{"TIME", "EVENT", "MESSAGE", "WHO", "WHAT"}

func tableRows() [][]string {
	return [][]string{
		{"07:55:04Z", "auth-fail", "-", "anna@example.com from 192.0.2.17",
			"535 5.7.8 authentication failed (a wrong password)"},
		{"2026-11-27 07:55:04Z", "delivered", "3m5x0g9k2a7c1d4e",
			"anna@example.com <anna@example.com> to <bob@example.net>", "by provider: 250 2.0.0 OK 日本語 queued"},
	}
}

func printed(t *testing.T, s *screen) string {
	t.Helper()
	var out bytes.Buffer
	s.Writer = &out
	if err := table(s, tableHeading, tableRows()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	plain := printed(t, &screen{})
	if lines := strings.Count(plain, "\n"); lines != 3 {
		t.Errorf("without a width a row is a line, not %d:\n%s", lines, plain)
	}
	for _, width := range []int{200, 132, 100, 80, 60, 40, 20, 5, 1} {
		text := printed(t, &screen{width: width})
		for line := range strings.Lines(text) {
			if n := columnsOf(strings.TrimRight(line, "\n")); n > max(width, 12) {
				t.Errorf("width %d: a line of %d: %q", width, n, line)
			}
			if strings.HasSuffix(line, " \n") {
				t.Errorf("width %d: blanks at the end: %q", width, line)
			}
		}
		got, want := strings.Join(strings.Fields(text), ""), strings.Join(strings.Fields(plain), "")
		if width >= 12 && len(sortedRunes(got)) < len(sortedRunes(want)) {
			t.Errorf("width %d: something is missing:\n%s", width, text)
		}
		if width >= 80 && !strings.Contains(text, "3m5x0g9k2a7c1d4e") {
			t.Errorf("width %d: the id of a message is broken:\n%s", width, text)
		}
	}
	if got := printed(t, &screen{width: 300}); got != plain {
		t.Errorf("a wide terminal changes something:\n%s", got)
	}
	if text := printed(t, &screen{width: 40}); !strings.Contains(text, "MESSAGE  3m5x0g9k2a7c1d4e\n") {
		t.Errorf("a narrow terminal gets blocks:\n%s", text)
	}
}

func sortedRunes(s string) []rune {
	r := []rune(s)
	slices.Sort(r)
	return r
}

func TestColourOnScreensOnly(t *testing.T) {
	t.Parallel()
	plain, coloured := printed(t, &screen{width: 80}), printed(t, &screen{width: 80, colour: true})
	if strings.Contains(plain, "\x1b") {
		t.Errorf("colours without a terminal:\n%q", plain)
	}
	if !strings.Contains(coloured, "\x1b[31mauth-fail\x1b[0m") ||
		!strings.Contains(coloured, "\x1b[32mdelivered\x1b[0m") {
		t.Errorf("no colours:\n%q", coloured)
	}
	if got := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(coloured, ""); got != plain {
		t.Errorf("colours move columns:\n%s\n%s", got, plain)
	}
	var out bytes.Buffer
	if paint(&out, red, "x") != "x" {
		t.Error("what is no screen is coloured")
	}
	// Colours of a message's sender would be ours then.
	if err := table(&screen{Writer: &out, colour: true}, []string{"NOTE"}, [][]string{{"a\x1b[31mb"}}); err != nil ||
		strings.Contains(out.String(), "\x1b[31m") {
		t.Errorf("%q", out.String())
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		columns int
		want    []string
	}{
		{"", 5, []string{""}},
		{"abc", 3, []string{"abc"}},
		{"abc def", 3, []string{"abc", "def"}},
		{"abc  def", 4, []string{"abc", "def"}},
		{"anna@example.com", 8, []string{"anna@", "example.", "com"}},
		{"a@b.example, c@d.example", 12, []string{"a@b.example,", "c@d.example"}},
		{"anna@", 4, []string{"anna", "@"}},
		{"abc ", 3, []string{"abc"}},
		{"abcdefgh", 3, []string{"abc", "def", "gh"}},
		{"日本語", 4, []string{"日本", "語"}},
		{"日本語", 1, []string{"日", "本", "語"}},
	} {
		if got := wrap(c.text, c.columns); !slices.Equal(got, c.want) {
			t.Errorf("wrap(%q, %d) = %q, want %q", c.text, c.columns, got, c.want)
		}
	}
}

// Whatever is wrapped keeps its letters and its bound.
func TestWrapLosesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z@ ,é日]{0,60}`).Draw(t, "text")
		columns := rapid.IntRange(2, 30).Draw(t, "columns")
		lines := wrap(text, columns)
		for _, line := range lines {
			if columnsOf(line) > columns {
				t.Fatalf("%q is wider than %d", line, columns)
			}
		}
		got := strings.ReplaceAll(strings.Join(lines, ""), " ", "")
		if want := strings.ReplaceAll(text, " ", ""); got != want {
			t.Fatalf("%q became %q", text, lines)
		}
	})
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 9_999: "9999 B", 10_000: "10 kB", 1 << 20: "1048 kB", 35_000_000: "35 MB", 16 << 20: "16 MB",
		9_999_999: "9999 kB", 3_200_000_000: "3200 MB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}
