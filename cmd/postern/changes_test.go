package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"postern/internal/release"
)

func TestChanges(t *testing.T) {
	l := newCommandLine(t)
	newest := release.History()[0]
	all := l.ok("changes")
	if !strings.Contains(all, newest.Sections[0].Text) || !strings.Contains(all, "\n\nAdded\n- ") {
		t.Errorf("%.400s", all)
	}
	if said := l.ok("changes", "--since", "0.0.1", "--configuration"); !strings.Contains(said, "0.9.0 - 2026-11-29\n\n"+
		"Configuration\n") || strings.Contains(said, "Added") {
		t.Errorf("%.400s", said)
	}
	if said := l.ok("changes", "--since", "99.0.0", "--configuration"); said !=
		"Nothing in relay.toml has changed since 99.0.0.\n" {
		t.Error(said)
	}
	var list []release.Release
	if err := json.Unmarshal([]byte(l.ok("changes", "--since", "0.8.0", "--json")), &list); err != nil ||
		len(list) != len(release.History()) {
		t.Errorf("%d, %v", len(list), err)
	}
	_, _, err := l.run("changes", "--since", "new")
	if _, isUsage := errors.AsType[*usageError](err); !isUsage ||
		!strings.Contains(err.Error(), `"new" is not a version: write it like 0.9.0`) {
		t.Error(err)
	}
}
