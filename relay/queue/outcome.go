package queue

import (
	"log/slog"
	"slices"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// The replies that stand for outcomes of our own making.
var (
	replyOperator = mail.R(550, "5.0.0", "given up by the operator of this relay")
	replyExpired  = mail.R(450, "4.4.7", "delivery time expired before any upstream could be used")
	replyNoResult = mail.R(451, "4.3.0", "the attempt ended without a result")
)

// decision is an outcome with what the trace is told once it is committed.
type decision struct {
	out     Outcome
	gaveUp  string        // why pending recipients failed without a permanent reply, if they did
	expired []int         // recipients that were given up because their time is over
	events  []trace.Event // about reports
}

// decider computes what the results of an attempt make of a message.
type decider struct {
	times      *timetable
	makeReport func(Notice) (*NewMessage, error)
	log        *slog.Logger
}

// decide computes new states of the recipients of m, whose Attempts count the attempt already, the time of the next
// attempt, and reports. Without a result a recipient stays as it is, unless the operator gave the message up or its
// time is over. It changes nothing, in m or elsewhere, except that makeReport is called. c may be nil, as in Notice.
func (d *decider) decide(now time.Time, m *Message, c mail.Content, results []mail.Result) decision {
	dec := undecided(m)
	dec.apply(results)
	dec.doubt()
	switch {
	case m.Bounce:
		dec.gaveUp = replyOperator.Text
		dec.giveUp(replyOperator)
	case expired(now, m):
		dec.gaveUp = "given up: delivery time expired"
		dec.giveUp(mail.Reply{})
	}
	d.reportResults(now, m, c, &dec)
	if dec.out.Remove = !dec.out.pending(); dec.out.Remove {
		return dec
	}
	d.reportDelay(now, m, c, &dec)
	dec.out.NextAttempt = d.times.nextAttempt(now, m, dec.out, results)
	return dec
}

// undecided is a decision that leaves m as it is.
func undecided(m *Message) decision {
	return decision{out: Outcome{Recipients: slices.Clone(m.Recipients), Warned: m.Warned, LastReply: m.LastReply}}
}

func (o *Outcome) pending() bool {
	return slices.ContainsFunc(o.Recipients, func(r Recipient) bool { return r.Status == Pending })
}

// apply sets the recipients' new states.
func (dec *decision) apply(results []mail.Result) {
	for _, r := range results {
		if r.Recipient < 0 || r.Recipient >= len(dec.out.Recipients) ||
			dec.out.Recipients[r.Recipient].Status != Pending {
			continue
		}
		to := &dec.out.Recipients[r.Recipient]
		to.Reply, to.Upstream, to.Host, to.Stage = r.Reply, r.Upstream, r.SaidBy(), r.Stage
		switch {
		case r.Class == mail.Delivered:
			to.Status, to.Relayed = Delivered, r.RelayedDSN
		case r.Class.Permanent():
			to.Status = Failed
		}
		if r.Uncertain && to.Status != Delivered {
			to.Doubts++ // a failure report says so
		}
		dec.out.LastReply = worse(dec.out.LastReply, r.Reply)
	}
}

// MaxDoubts is how often a message is given to an upstream that does not say whether it has it. Each time may be a
// copy.
const MaxDoubts = 3

// doubtDelays are the waits behind an attempt that the upstream may have taken, at least: what was taken needs time to
// show, in Sent Items or to its recipient, and an upstream that fails behind the final dot needs time to be mended.
var doubtDelays = [...]time.Duration{10 * time.Minute, time.Hour}

// doubt ends the recipients for which nobody has said so often enough.
func (dec *decision) doubt() {
	for i := range dec.out.Recipients {
		if to := &dec.out.Recipients[i]; to.Status == Pending && to.Doubts >= MaxDoubts {
			to.Status = Unclear
		}
	}
}

// worse picks the reply that explains more: the later one, unless it only says that all is well.
func worse(have, got mail.Reply) mail.Reply {
	if got.IsZero() || got.OK() && !have.IsZero() {
		return have
	}
	return got
}

// giveUp fails what is still pending: with our own reply, or because the time is over. The last reply of
// the upstream stays, for it tells the sender why.
func (dec *decision) giveUp(reply mail.Reply) {
	for i := range dec.out.Recipients {
		to := &dec.out.Recipients[i]
		if to.Status != Pending {
			continue
		}
		switch to.Status = Failed; {
		case to.Doubts > 0: // it may have come to its recipient
			to.Status = Unclear
		case !reply.IsZero():
			to.Reply, to.Host, to.Stage = reply, "", ""
		default:
			dec.expired = append(dec.expired, i)
			if to.Reply.IsZero() {
				to.Reply = replyExpired
			}
		}
		dec.out.LastReply = to.Reply
	}
}

// complete returns one result for every pending recipient, in order. Whatever an attempt left out, or
// could not name, is a deferral.
func complete(m *Message, results []mail.Result) []mail.Result {
	byIndex := make(map[int]mail.Result, len(results))
	for _, r := range results {
		byIndex[r.Recipient] = r
	}
	out := make([]mail.Result, 0, len(results))
	for i, to := range m.Recipients {
		if to.Status != Pending {
			continue
		}
		r, ok := byIndex[i]
		if !ok {
			r = mail.Result{Recipient: i, Reply: replyNoResult}
		}
		if r.Class == mail.Unknown {
			r.Class = mail.Deferral
		}
		out = append(out, r)
	}
	return out
}
