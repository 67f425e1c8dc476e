package outbound

import (
	"context"
	"time"

	"postern/mail"
	"postern/relay/dsn"
	"postern/relay/queue"
)

// replyNotLetIn stands in reports for all that was said about our login at the provider, which is nobody's but ours.
var replyNotLetIn = mail.R(451, "4.7.0",
	"the provider that this relay sends through does not let it in; the administrator knows more")

// Report makes the message that tells a sender what became of its recipients. It has a null
// reverse-path, which an upstream that refuses one gets replaced at the attempt.
func (d *Dispatcher) Report(n queue.Notice) (*queue.NewMessage, error) {
	routes := d.Routes()
	m := n.Message
	id := mail.NewID(n.Time)
	report := &queue.Message{
		ID: id,
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: m.Envelope.From, Notify: mail.NotifyNever},
			Status: queue.Pending}},
		Received: n.Time,
	}
	report.Author = routes.reportAuthor(report)
	r := dsn.Report{
		Kind:         dsn.Kind(n.Kind),
		ReportingMTA: routes.hostname,
		From:         report.Author,
		To:           m.Envelope.From,
		MessageID:    id + "@" + routes.hostname,
		Now:          n.Time,
		ID:           m.ID,
		EnvID:        m.Envelope.EnvID,
		Arrival:      m.Received,
		Ret:          m.Envelope.Ret,
	}
	for _, about := range n.About {
		to := m.Recipients[about.Index]
		if about.Stage == mail.StageAuth {
			about.Reply, about.Host = replyNotLetIn, ""
		}
		r.Recipients = append(r.Recipients, dsn.Recipient{
			Final: to.To, ORcpt: to.ORcpt, Reply: about.Reply, RemoteMTA: about.Host,
			LastAttempt: n.Time, WillRetryUntil: n.RetryUntil, Expired: about.Expired, Doubts: about.Doubts,
		})
	}
	octets, err := d.makeReport(r, n)
	if err != nil {
		return nil, err
	}
	report.Envelope.UTF8, report.EightBit = r.NeedsUTF8(), r.NeedsUTF8()
	report.MessageID, report.Size = "<"+r.MessageID+">", int64(len(octets))
	return &queue.NewMessage{Message: report, Content: mail.BytesContent(octets)}, nil
}

// makeReport writes the report with the returned part of the message. If the message cannot be read, the report waits
// until the message expires and then goes without it: an unreadable message must not be kept forever for its own
// report.
func (d *Dispatcher) makeReport(r dsn.Report, n queue.Notice) ([]byte, error) {
	octets, err := d.withOriginal(r, n)
	if err == nil || n.Message.Expires.IsZero() || n.Time.Before(n.Message.Expires) {
		return octets, err
	}
	d.Logger.Error("a report is made without the message that it is about", "id", n.Message.ID, "kind", n.Kind,
		"err", err)
	r.Original = nil
	return dsn.Make(r)
}

func (d *Dispatcher) withOriginal(r dsn.Report, n queue.Notice) ([]byte, error) {
	if r.Original = n.Content; r.Original == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		var err error
		if r.Original, err = d.Store.Content(ctx, n.Message.ID); err != nil {
			return nil, err
		}
	}
	return dsn.Make(r)
}
