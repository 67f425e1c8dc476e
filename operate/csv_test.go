package operate

import (
	"bytes"
	"encoding/csv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"postern/auth"
	"postern/relay/stats"
)

// csvWriters are all that write CSV, with a text from outside in each field that may have one.
var csvWriters = map[string]func(w *bytes.Buffer, text string) error{
	"statistics": func(w *bytes.Buffer, text string) error {
		return WriteStatistics(w, &stats.Table{Rows: []stats.Row{{Start: time.Unix(0, 0), Key: text}}})
	},
	"passwords": func(w *bytes.Buffer, text string) error {
		return WritePasswords(w, []Credential{{Login: text, Password: auth.GeneratePassword()}})
	},
}

// injections are what a spreadsheet may take for a formula, and what else must not come out.
var injections = []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\"=1", "x;=1", "x,=1",
	"x\t=1", "x\n=1", "x; =1", "x;\"=1", "\uff1d1", "x;\uff0b1", "=cmd|' /C calc'!A0", "x|=1", "\x1b[31m", "\u202e=1",
	"\u009b2J", "\ufeff=1", "\u200b=1", "-", "\x00=1", "a;;=1", "'=1"}

// checkCSV looks at a cell as spreadsheets of different countries cut lines into cells.
func checkCSV(t interface{ Errorf(string, ...any) }, what, text, file string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(file, "\n"), "\n") {
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Errorf("%s %q: it has %U: %q", what, text, r, line)
			}
		}
		for _, separator := range []string{",", ";", "\t", "|"} {
			for cell := range strings.SplitSeq(line, separator) {
				cell = strings.TrimLeft(cell, " \"")
				if cell != "" && cell != "-" && !strings.HasPrefix(cell, "-,") && // which is none anywhere
					strings.ContainsRune(csvFormula, []rune(cell)[0]) {
					t.Errorf("%s %q: with %q a cell begins with a formula: %q", what, text, separator, cell)
				}
			}
		}
	}
}

func TestNoFormulaInCSV(t *testing.T) {
	for what, write := range csvWriters {
		for _, text := range injections {
			var b bytes.Buffer
			if err := write(&b, text); err != nil {
				t.Fatal(err)
			}
			checkCSV(t, what, text, b.String())
			if rows, err := csv.NewReader(&b).ReadAll(); err != nil || len(rows) < 2 {
				t.Errorf("%s %q: %q, %v", what, text, rows, err)
			}
		}
	}
	for _, plain := range []string{"anna@example.com", "a-b", "x+tag@example.com", "-", "", "scanner-2"} {
		if got := csvSafe(plain); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

func TestNoFormulaInCSVProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		special := rapid.SampledFrom([]rune("=+-@;,|\t\r\n \"'x\uff1d\u202e\x1b"))
		text := rapid.StringOf(rapid.OneOf(special, rapid.Rune())).Draw(t, "text")
		for what, write := range csvWriters {
			var b bytes.Buffer
			if err := write(&b, text); err != nil {
				t.Fatal(err)
			}
			checkCSV(t, what, text, b.String())
		}
	})
}

// TestOneCSVWriter: nobody writes CSV past writeCSV.
func TestOneCSVWriter(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), "csv.NewWriter") && path != filepath.Join("..", "operate", "csv.go") {
			t.Errorf("%s has a writer of its own", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
