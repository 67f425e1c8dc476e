package relay

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/status"
)

// TestSourcesInStatus: sources of logins are up or down, with the reason made printable and bounded.
func TestSourcesInStatus(t *testing.T) {
	since := time.Now()
	r := &status.Report{Sources: []status.Source{{Name: "office", Type: "ldap"}, {Name: "box", Type: "dovecot"},
		{Name: "new", Type: "http"}}}
	addSources(r, []auth.SourceState{{Name: "box", Err: errors.New("\x1b[2J" + strings.Repeat("x", 600)), Since: since},
		{Name: "office"}, {Name: "gone"}})
	office, box, fresh := r.Sources[0], r.Sources[1], r.Sources[2]
	if office.State != status.SourceUp || office.Problem != "" || !office.Since.IsZero() {
		t.Errorf("%+v", office)
	}
	if box.State != status.SourceDown || !box.Since.Equal(since) || len(box.Problem) > 510 ||
		strings.Contains(box.Problem, "\x1b") || !strings.Contains(box.Problem, "xxx") {
		t.Errorf("%+v", box)
	}
	if fresh.State != "" {
		t.Errorf("%+v", fresh)
	}
}
