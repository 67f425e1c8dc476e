package monitor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/trace"
)

// queueAge tells that mail waits for too long. It has ended when the oldest message is half as old: not for the moment
// between two of them.
func (m *Monitor) queueAge(ctx context.Context, now time.Time) {
	q, err := m.Store.Stats(ctx)
	if err != nil {
		return // the store says so itself
	}
	age := time.Duration(0)
	if q.Messages > 0 && !q.Oldest.IsZero() {
		age = now.Sub(q.Oldest)
	}
	open := m.alerter.Open(alert.QueueAge)
	var hold []alert.Condition
	for _, threshold := range m.alerter.Thresholds() {
		told := slices.ContainsFunc(open,
			func(c alert.Condition) bool { return c.Details["threshold"] == threshold.String() })
		if age < threshold && (!told || age < threshold/2) {
			continue
		}
		held := ""
		if q.Held > 0 {
			held = fmt.Sprintf(", %d of them held for release", q.Held)
		}
		hold = append(hold, alert.Condition{
			Event: alert.QueueAge, Subject: "queue", Threshold: threshold,
			Summary: fmt.Sprintf("Mail waits: the oldest message for %s; %d in all%s. What to do: postern queue list "+
				"says what each of them waits for.",
				config.Duration(age.Truncate(time.Second)), q.Messages, held),
			Over: "The queue is as young as it should be again.",
			Details: map[string]string{
				"threshold": threshold.String(), "oldest": clock(q.Oldest), "messages": fmt.Sprint(q.Messages),
				"held": fmt.Sprint(q.Held), "octets": fmt.Sprint(q.Bytes),
			},
		})
	}
	m.alerter.Set(alert.QueueAge, hold)
}

// lostReport reports the end of a report of ours that was not delivered.
func lostReport(e trace.Event) bool { return e.Kind == trace.Failed && e.Login == "" && e.From == "" }

func reportCondition(e trace.Event) alert.Condition {
	return alert.Condition{
		Event: alert.ReportFailed, Subject: "reports",
		Summary: fmt.Sprintf("A report about undelivered mail did not reach %s, who does not know that the mail "+
			"failed: %q. "+
			"What to do: tell the sender; postern trace --id %s shows the report. Where the provider refuses the "+
			"report's sender, "+
			"set bounce_from in [delivery] to an address that it lets send, and try it: postern upstream test NAME",
			e.To, e.Reply.String(), e.ID),
		Over:  "No report has failed for a day.",
		Until: e.Time.Add(refusalLife),
		Details: map[string]string{"to": e.To, "id": e.ID, "upstream": e.Upstream, "reply": e.Reply.String(),
			"since": clock(e.Time)},
	}
}
