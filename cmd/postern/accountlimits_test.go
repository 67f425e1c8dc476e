package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/operate"
)

// TestUserLimits: a command beside the daemon says at once what the daemon has counted, and after a restart too.
func TestUserLimits(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "\n[[policy]]\nlogins = [\"anna@*\"]\nlimits = [\"5 messages/day\", \"7 recipients/week\"]\n"+
		"[[policy]]\nlogins = [\"scanner\"]\nlimits = []\n")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	o.postern("", "device", "add", "scanner", "--sender", "scans@example.com")
	limits := func(args ...string) (l operate.Limits) {
		t.Helper()
		if err := json.Unmarshal([]byte(o.postern("", append(args, "--json")...)), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	counts := func(used int64) {
		t.Helper()
		l := limits("user", "limits", "anna@example.com")
		if len(l.Limits) != 2 || l.Late {
			t.Fatalf("%+v", l)
		}
		for i, count := range []int64{5, 7} {
			got := l.Limits[i]
			if got.Used != used || got.Left != count-used || got.Full.IsZero() != (used == 0) || !got.Next.IsZero() ||
				got.Policy != "policy 1" {
				t.Errorf("after %d messages: %+v", used, got)
			}
		}
	}
	counts(0)
	p := o.serve()
	counts(0)
	for i := range 3 {
		if out := testkit.Smtplib(t, o.submission(fmt.Sprint("mail", i))); !out.OK {
			t.Fatal(out.Text)
		}
		counts(int64(i + 1))
	}
	p.Stop()
	counts(3)
	if l := limits("device", "limits", "scanner"); l.Limits == nil || len(l.Limits) != 0 {
		t.Errorf("without limits: %+v", l)
	}
	if out := o.postern("", "user", "limits", "scanner"); !strings.Contains(out, "No limit binds scanner") {
		t.Error(out)
	}
	if out := o.postern("", "user", "limits", "anna@example.com"); !strings.Contains(out, "5 messages/day") {
		t.Error(out)
	}
}
