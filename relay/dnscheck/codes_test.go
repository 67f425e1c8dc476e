package dnscheck

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/relay/finding"
)

// docs/dns.md has every code with its weight and why it matters, and no other. Every code that the sources note is one.
func TestTheGuideHasEveryCode(t *testing.T) {
	guide, err := os.ReadFile("../../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, code := range slices.Sorted(maps.Keys(advices)) {
		if a := advices[code]; a.weight != finding.Healthy {
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", code, a.weight, a.why))
		}
	}
	table := "| code | weight | why it matters |\n|---|---|---|\n" + strings.Join(rows, "\n") + "\n"
	if !strings.Contains(string(guide), "\n"+table+"\n") {
		t.Errorf("docs/dns.md must have this table:\n%s", table)
	}
	sources, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range sources {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:note|bad)\("([a-z-]+)"`).FindAllSubmatch(text, -1) {
			if _, known := advices[string(m[1])]; !known {
				t.Errorf("%s notes %s, which has no advice", f.Name(), m[1])
			}
		}
	}
}
