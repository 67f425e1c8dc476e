package main

import (
	"strings"
	"testing"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	out := l.ok("settings", "retry")
	if !strings.Contains(out, "delivery.retry") || !strings.Contains(out, "default") || strings.Contains(out,
		"hostname") {
		t.Errorf("%s", out)
	}
	if out := l.ok("settings", "--written", "--json"); strings.Contains(out, `"written": false`) {
		t.Errorf("%s", out)
	}
	if out, _, err := l.run("settings", "nothing-like-this"); err == nil || isUsage(err) {
		t.Errorf("%v: %s", err, out)
	}
}
