package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPathIsFollowedThroughCalls(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module m\n\ngo 1.26\n",
		"a.go":   "package m\n\nfunc start() { near(); far(); far() }\n\nfunc near() {}\n\nfunc up() {}\n",
		"b.go":   "package m\n\nfunc far() { var d doer = thing{}; d.do() }\n\ntype doer interface{ do() }\n",
		"c.go":   "package m\n\ntype thing struct{}\n\nfunc (thing) do() { up(); _ = error.Error }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := follow(dir, "start", ".")
	if err != nil {
		t.Fatal(err)
	}
	var stays []string
	for _, file := range f.stays {
		stays = append(stays, filepath.Base(file))
	}
	if want := []string{"a.go", "b.go", "c.go", "a.go", "c.go", "b.go", "a.go"}; !slices.Equal(stays, want) {
		t.Errorf("stays %v, want %v", stays, want)
	}
	if len(f.climbs) != 1 {
		t.Errorf("climbs %q, want the one to up", f.climbs)
	}
	if reportPath(f) {
		t.Error("a climb is accepted")
	}
	if _, err := follow(dir, "nothing", "."); err == nil {
		t.Error("no error for a start that is not there")
	}
}
