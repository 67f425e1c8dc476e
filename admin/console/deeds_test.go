package console

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/operate"
	"postern/relay/store"
)

// TestEveryDeedHasAWord: whatever may stand in the audit is said in words, in German too.
func TestEveryDeedHasAWord(t *testing.T) {
	names := map[string]bool{}
	for _, op := range operate.All {
		if op.Audit {
			names[op.Name] = true
		}
	}
	files, err := filepath.Glob("../access/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	own := regexp.MustCompile(`\bop[A-Z]\w* *= "([^"]+)"`)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range own.FindAllStringSubmatch(string(data), -1) {
			names[m[1]] = true
		}
	}
	if len(names) < 30 {
		t.Fatalf("%d operations only", len(names))
	}
	english, german := wordsFor("en"), wordsFor("de")
	for name := range names {
		if got := german.deed(name); got == name || got == english.deed(name) {
			t.Errorf("%s is called %q: it needs a line in deeds.go and words/audit.txt", name, got)
		}
	}
	r := newRig(t)
	r.must(r.store.AppendAudit(t.Context(), store.AuditEntry{Time: time.Now(), Actor: "root",
		Channel: "command line", Operation: "user add", Subject: "scanner", Outcome: store.AuditDone}))
	body := r.page("/audit", in("de"))
	for _, want := range []string{"Zugang anlegen", "auf der Befehlszeile", `<option value="user add">Zugang anlegen`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}
