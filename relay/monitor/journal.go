package monitor

import (
	"context"
	"time"

	"postern/relay/alert"
	relaystore "postern/relay/store"
)

// journalQueueAge is the age from which waiting mail is an alert of the journal.
const journalQueueAge = time.Hour

// journal is the hook that is always there: it writes alerts to the log, and to the store for those who look at them.
func (m *Monitor) journal() alert.Hook {
	return alert.Hook{Name: "journal", QueueAge: journalQueueAge, Local: m.record}
}

func (m *Monitor) record(ctx context.Context, d alert.Document) error {
	row := relaystore.Alert{Event: string(d.Event), Subject: d.Subject, Since: d.Since, Details: d.Details}
	if d.Resolved {
		row.Ended, row.Over = d.Time, d.Summary
	} else {
		row.Summary = d.Summary
	}
	if err := m.Store.SaveAlert(ctx, row); err != nil {
		return err // and tried again
	}
	switch {
	case d.Resolved:
		m.Logger.Info("alert resolved", "event", row.Event, "subject", d.Subject, "summary", d.Summary)
	case !d.Repeated:
		m.Logger.Warn("alert", "event", row.Event, "subject", d.Subject, "summary", d.Summary)
	}
	return nil
}
