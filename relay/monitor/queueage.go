package monitor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postern/relay/alert"
	"postern/relay/config"
)

// queueAge alerts that mail has waited too long. The alert closes when the oldest message is half as old as the
// threshold, not in the gap between two old ones.
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
