package monitor

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postern/relay/alert"
	"postern/relay/finding"
)

// When the doctor examines by itself. It logs in nowhere, but it connects, and asks DNS.
const (
	examineFirst = 10 * time.Minute
	examineEvery = 24 * time.Hour
)

// maxDangers bounds the findings that alerts are made of.
const maxDangers = 50

// doctor lets somebody examine everything once a day, and alerts of what puts mail in danger. Upstreams, certificates,
// disk and queue have alerts of their own.
type doctor struct {
	examine func(context.Context) ([]finding.Finding, error)
	alerter *alert.Alerter
	log     *slog.Logger
}

// run works until ctx ends.
func (d doctor) run(ctx context.Context) {
	timer := time.NewTimer(examineFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		d.dangers(d.examine(ctx))
		timer.Reset(examineEvery)
	}
}

// dangers alerts of the findings of the first weight, and ends those that were not found again. What could not be
// examined keeps its last state.
func (d doctor) dangers(found []finding.Finding, err error) {
	if err != nil {
		d.log.Warn("the daily examination failed", "err", err)
		return
	}
	var hold []alert.Condition
	for _, f := range together(found) {
		if len(hold) == maxDangers {
			break
		}
		subject := f.Code
		if f.Subject != "" {
			subject += ": " + f.Subject
		}
		hold = append(hold, alert.Condition{
			Event: alert.Danger, Subject: subject, Group: "findings of the doctor",
			Summary: f.What + " " + f.Why + " What to do: " + f.Fix,
			Over:    "The doctor does not find it any more.",
			Details: map[string]string{"code": f.Code, "subject": f.Subject, "what": f.What, "why": f.Why,
				"fix": f.Fix},
		})
	}
	d.alerter.Set(alert.Danger, hold)
}

// maxTogether bounds the findings that one alert is made of.
const maxTogether = 5

// together are the findings of the first weight; those of one kind about one thing, such as two keys of a domain, are
// one, which says what each says.
func together(found []finding.Finding) (list []finding.Finding) {
	count := map[string]int{}
	for _, f := range found {
		if f.Weight != finding.Danger {
			continue
		}
		i := slices.IndexFunc(list, func(o finding.Finding) bool { return o.Code == f.Code && o.Subject == f.Subject })
		if i < 0 {
			list = append(list, f)
			continue
		}
		one, key := &list[i], f.Code+"\x00"+f.Subject
		if strings.Contains(one.What, f.What) || count[key] == maxTogether-1 {
			continue
		}
		count[key]++
		one.What += " " + f.What
		for _, part := range []struct {
			of   *string
			more string
		}{{&one.Why, f.Why}, {&one.Fix, f.Fix}} {
			if !strings.Contains(*part.of, part.more) {
				*part.of += "\n" + part.more
			}
		}
	}
	return list
}
