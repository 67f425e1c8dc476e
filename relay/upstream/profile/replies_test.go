package profile

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream/replies"
)

// field is a reply seen in public, with what is right to make of it.
type field struct {
	line       int
	provider   string
	stage      mail.Stage
	class      string   // of mail.Class by its first word, or sender
	defensible []string // what may be argued for too
	reply      mail.Reply
	text       string
}

// readField reads a table: provider, stage, class, defensible classes, reply, note.
func readField(t *testing.T, file string) (rows []field) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		c := strings.Split(lines.Text(), "\t")
		if strings.HasPrefix(c[0], "#") || c[0] == "provider" || c[0] == "microsoft-graph" || c[0] == "oauth" {
			continue // the last two are no SMTP
		}
		if len(c) < 5 {
			t.Fatalf("%s:%d: %d columns", file, n, len(c))
		}
		reply, err := replies.Parse(strings.ReplaceAll(c[4], `\r\n`, "\r\n"))
		if err != nil {
			t.Fatalf("%s:%d: %v", file, n, err)
		}
		rows = append(rows, field{n, c[0], mail.Stage(c[1]), c[2], strings.Fields(c[3]), reply, c[4]})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// fieldClass is the table's word for what a rule does.
func fieldClass(r replies.Rule) string {
	switch {
	case r.Scope == replies.ScopeSender:
		return "sender"
	case r.Class == mail.Deferral:
		return "deferral"
	case r.Class == mail.BackPressure:
		return "pressure"
	}
	word, _, _ := strings.Cut(r.Class.String(), "-")
	return word
}

// No reply that was seen in the field is taken for the wrong party's matter.
func TestRepliesOfTheField(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, file := range []string{"../testdata/replies.tsv", "../testdata/replies-more.tsv"} {
		rows := readField(t, file)
		if len(rows) < 80 {
			t.Errorf("%s: only %d rows", file, len(rows))
		}
		for _, row := range rows {
			p, ok := Get(row.provider)
			if !ok {
				t.Errorf("%s:%d: no profile %s", file, row.line, row.provider)
				continue
			}
			rules, err := replies.Compile(p.UpstreamRules())
			if err != nil {
				t.Fatal(err)
			}
			rule, _ := rules.Classify(row.stage, row.reply, now)
			if got := fieldClass(rule); got != row.class && !slices.Contains(row.defensible, got) {
				t.Errorf("%s:%d: %s at %s: %s\n\tis %s by rule %q, not %s %v", file, row.line, row.provider, row.stage,
					row.text, got, rule.Name, row.class, row.defensible)
			}
		}
	}
}
