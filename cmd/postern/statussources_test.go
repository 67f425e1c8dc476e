package main

import (
	"strings"
	"testing"
	"time"

	"postern/relay/status"
)

// TestStatusSources: what a source of logins lacks stands on the page.
func TestStatusSources(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var out strings.Builder
	err := writeStatus(&out, &status.Report{Running: true, Time: now, Sources: []status.Source{{Name: "office",
		Type: "ldap", State: status.SourceDown, Since: now.Add(-time.Hour), Problem: "connection refused"}}})
	for _, want := range []string{"SOURCE OF LOGINS", "office", "ldap", "down", "connection refused"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing, %v:\n%s", want, err, &out)
		}
	}
	out.Reset()
	if err := writeStatus(&out, &status.Report{Running: true, Time: now}); err != nil ||
		strings.Contains(out.String(), "SOURCE OF LOGINS") {
		t.Errorf("%v\n%s", err, &out)
	}
}
