package monitor

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/alert"
	"postern/relay/finding"
)

// Findings of one kind about one thing are one alert, that has them all.
func TestDangersOfOneKindAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := stand(t, Options{})
		d := doctor{alerter: a.alerter, log: a.Logger}
		key := func(name string) finding.Finding {
			return finding.Finding{Code: "dkim-missing", Weight: finding.Danger, Subject: "example.com",
				What: "The DKIM record " + name + " is not published.", Why: "Unsigned.", Fix: "Publish " + name + "."}
		}
		d.dangers([]finding.Finding{key("r1"), key("e1"), key("r1")}, nil)
		open := a.alerter.Open(alert.Danger)
		if len(open) != 1 || strings.Count(open[0].Summary, "r1 is not") != 1 ||
			strings.Count(open[0].Summary, "e1 is not") != 1 || strings.Count(open[0].Summary, "Unsigned.") != 1 ||
			!strings.Contains(open[0].Details["fix"], "Publish e1.") {
			t.Errorf("%+v", open)
		}
	})
}

// The doctor looks ten minutes after the start and then daily; what puts mail in danger is an alert until it is gone.
func TestDangersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		danger := finding.Finding{Code: "dns-nxdomain", Weight: finding.Danger, Subject: "example.com",
			What: "There is no domain.", Why: "Mail is refused.", Fix: "Mend it."}
		fault := finding.Finding{Code: "clock-free", Weight: finding.Fault, What: "x"}
		answers := []struct {
			found []finding.Finding
			err   error
		}{{[]finding.Finding{danger, fault}, nil}, {nil, errors.New("no file handles")},
			{[]finding.Finding{fault}, nil}}
		var looks atomic.Int64
		a := stand(t, Options{Examine: func(context.Context) ([]finding.Finding, error) {
			answer := answers[min(int(looks.Add(1)), len(answers))-1]
			return answer.found, answer.err
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); doctor{a.Examine, a.alerter, a.Logger}.run(ctx) }()
		after := func(d time.Duration, wantLooks, open int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := a.alerter.Open(alert.Danger); int(looks.Load()) != wantLooks || len(got) != open {
				t.Errorf("%d looks, %+v", looks.Load(), got)
			}
		}
		after(examineFirst-time.Second, 0, 0)
		after(time.Minute, 1, 1)
		c := a.alerter.Open(alert.Danger)[0]
		if c.Subject != "dns-nxdomain: example.com" ||
			c.Summary != "There is no domain. Mail is refused. What to do: Mend it." {
			t.Errorf("%+v", c)
		}
		after(examineEvery, 2, 1) // what was not examined is not over
		after(examineEvery, 3, 0)
		cancel()
		<-done
	})
}
