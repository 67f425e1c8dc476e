package console

import (
	"strings"
	"testing"
	"time"

	"postern/relay/status"
)

// TestNowNamesSources: the first page says which source of logins does not answer, and why.
func TestNowNamesSources(t *testing.T) {
	r := newRig(t)
	r.report.Sources = []status.Source{{Name: "office", Type: "ldap", State: status.SourceDown,
		Since: r.now.Add(-time.Hour), Problem: "connection <refused>"}, {Name: "box", Type: "dovecot",
		State: status.SourceUp}}
	page := r.page("/")
	for _, want := range []string{"Sources of logins", "office", "does not answer", "connection &lt;refused&gt;",
		"box"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
}
