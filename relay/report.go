package relay

import (
	"context"
	"time"

	"postern/mail"
	"postern/relay/dsn"
	"postern/relay/queue"
)

// statusExpired is the status of a recipient given up because its time ran out (RFC 3463 §3.5).
const statusExpired = "5.4.7"

// report makes the message that tells a sender what became of its recipients. It has a null
// reverse-path, which an upstream that refuses one gets replaced at the attempt.
func (s *Server) report(n queue.Notice) (*queue.NewMessage, error) {
	st := s.state.Load()
	m := n.Message
	id := mail.NewID(n.Time)
	r := dsn.Report{
		Kind:         dsn.Kind(n.Kind),
		ReportingMTA: st.config.Hostname,
		From:         st.postmaster(),
		To:           m.Envelope.From,
		MessageID:    id + "@" + st.config.Hostname,
		Now:          n.Time,
		ID:           m.ID,
		EnvID:        m.Envelope.EnvID,
		Arrival:      m.Received,
		Ret:          m.Envelope.Ret,
	}
	for _, about := range n.About {
		to := m.Recipients[about.Index]
		r.Recipients = append(r.Recipients, dsn.Recipient{
			Final: to.To, ORcpt: to.ORcpt, Reply: about.Reply, RemoteMTA: about.Host,
			LastAttempt: about.Last, WillRetryUntil: n.RetryUntil, Expired: about.Status == statusExpired,
		})
	}
	octets, err := s.makeReport(r, n)
	if err != nil {
		return nil, err
	}
	return &queue.NewMessage{
		Message: &queue.Message{
			ID:         id,
			Envelope:   mail.Envelope{UTF8: r.NeedsUTF8()},
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: r.To, Notify: mail.NotifyNever}, Status: queue.Pending}},
			Author:     r.From,
			MessageID:  "<" + r.MessageID + ">",
			Size:       int64(len(octets)),
			EightBit:   r.NeedsUTF8(),
			Received:   n.Time,
		},
		Content: mail.BytesContent(octets),
	}, nil
}

// makeReport writes the report with what it returns of the message. While there is time, trouble with reading that is waited out;
// once the message's time is over the report goes without it: a message that cannot be read any more must not be kept, and
// tried, for ever for the sake of its own report.
func (s *Server) makeReport(r dsn.Report, n queue.Notice) ([]byte, error) {
	octets, err := s.withOriginal(r, n)
	if err == nil || n.Message.Expires.IsZero() || n.Time.Before(n.Message.Expires) {
		return octets, err
	}
	s.log.Error("a report is made without the message that it is about", "id", n.Message.ID, "kind", n.Kind, "err", err)
	r.Original = nil
	return dsn.Make(r)
}

func (s *Server) withOriginal(r dsn.Report, n queue.Notice) ([]byte, error) {
	if r.Original = n.Content; r.Original == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		var err error
		if r.Original, err = s.store.Content(ctx, n.Message.ID); err != nil {
			return nil, err
		}
	}
	return dsn.Make(r)
}

// postmaster is the header author of reports: bounce_from, since a provider that refuses the null
// reverse-path mostly wants to know the author too, else the postmaster of this host.
func (st *state) postmaster() mail.Address {
	if !st.bounceFrom.IsNull() {
		return st.bounceFrom
	}
	return mail.Address{Local: "postmaster", Domain: st.config.Hostname}
}
