package doctor

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/config"
	"postern/relay/finding"
)

// One examiner that hangs or panics is a finding, and the others are heard.
func TestExaminersThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		begun := time.Now()
		list := run(t.Context(), []Examiner{
			{Name: "good", Look: func(context.Context) []finding.Finding {
				return []finding.Finding{fine(codeDiskOK, "x", "well")}
			}},
			{Name: "stuck", Timeout: time.Second,
				Look: func(context.Context) []finding.Finding { <-stuck; return nil }},
			{Name: "broken", Look: func(context.Context) []finding.Finding { panic("no \x1b[31m such thing") }},
			{Name: "slow", Timeout: time.Second, Look: func(ctx context.Context) []finding.Finding {
				<-ctx.Done() // and says what it found
				return []finding.Finding{fine(codeQueueOK, "slow", "well")}
			}},
		})
		if took := time.Since(begun); took != time.Second+grace {
			t.Errorf("it took %s", took)
		}
		want(t, list, codeExaminerHung, finding.Fault, "stuck", "within 3s", "--only stuck")
		want(t, list, codeExaminerFailed, finding.Fault, "broken", "such thing")
		want(t, list, codeDiskOK, finding.Healthy)
		want(t, list, codeQueueOK, finding.Healthy)
		if strings.Contains(text(list), "\x1b") {
			t.Error("an escape sequence got through")
		}
		close(stuck)
	})
}

func TestExaminersRunAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		var all []Examiner
		for range 3 * atOnce {
			all = append(all, Examiner{Name: "x", Look: func(context.Context) []finding.Finding {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Second)
				now.Add(-1)
				return nil
			}})
		}
		begun := time.Now()
		run(t.Context(), all)
		if most.Load() != atOnce || time.Since(begun) != 3*time.Second {
			t.Errorf("%d at a time, in %s", most.Load(), time.Since(begun))
		}
	})
}

func TestFindingsAreBounded(t *testing.T) {
	e := Examiner{Name: "many"}
	var list []finding.Finding
	for i := range maxFindings + 7 {
		list = append(list, fine(codeFilesOK, fmt.Sprint(i), "x"))
	}
	list = append(list, found(codeDiskFull, finding.Danger, "last", "a", "b", "c"))
	got := e.bounded(list)
	if len(got) != maxFindings+1 || got[0].Code != codeDiskFull {
		t.Errorf("%d, first %s", len(got), got[0].Code)
	}
	want(t, got, codeMoreFindings, finding.Healthy, "8 more findings of many")
}

// More examiners are asked with the configuration, and --only chooses among all.
func TestChosenExaminers(t *testing.T) {
	w := newWard(t, plainUpstream)
	w.o.More = func(c *config.Config) []Examiner {
		return []Examiner{{Name: "domains", Look: func(context.Context) []finding.Finding {
			return []finding.Finding{{Code: "spf", Weight: finding.Danger, What: c.Hostname}}
		}}}
	}
	got := w.examine("domains")
	if len(got) != 1 || got[0].What != "relay.example.com" {
		t.Errorf("%+v", got)
	}
	o := w.o
	o.Only = []string{"domain"}
	if _, err := Examine(t.Context(), o); err == nil || !strings.Contains(err.Error(), "accounts, devices, domains") {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Examine(ended, w.o); err == nil {
		t.Error("an examination that was broken off is whole")
	}
}

// docs/doctor.md has each code with its meaning, in the order of the catalogue, and no other. The catalogue has each
// code that the sources name.
func TestTheListOfCodes(t *testing.T) {
	data, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows, have []string
	for _, c := range Codes() {
		rows = append(rows, fmt.Sprintf("| `%s` | %s |", c.Code, c.Means))
		have = append(have, c.Code)
	}
	if table := strings.Join(rows, "\n") + "\n"; !strings.Contains(string(data), "|---|---|\n"+table+"\n") {
		t.Errorf("docs/doctor.md must have this table:\n%s", table)
	}
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	have = append(have, healthy...)
	for _, m := range regexp.MustCompile(`(?m)^\tcode\w+\s+= "(.+)"$`).FindAllSubmatch(source, -1) {
		if i := slices.Index(have, string(m[1])); i < 0 {
			t.Errorf("%s is not in the catalogue", m[1])
		} else {
			have = slices.Delete(have, i, i+1)
		}
	}
	if len(have) > 0 {
		t.Errorf("twice, or no code any more: %s", have)
	}
}
