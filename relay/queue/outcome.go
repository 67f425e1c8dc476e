package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
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

// late computes what deliveries make of a message that somebody else has, who goes on with what they leave.
func (d *decider) late(now time.Time, m *Message, delivered []mail.Result) decision {
	dec := undecided(m)
	dec.apply(delivered)
	d.reportResults(now, m, nil, &dec)
	dec.out.Remove = !dec.out.pending()
	dec.out.NextAttempt, dec.out.WaitingFor = m.NextAttempt, m.WaitingFor
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

// NoticeKind is what a report tells.
type NoticeKind string

// The kinds of reports. A message may need several after one attempt.
const (
	Failure NoticeKind = "failure"
	Delay   NoticeKind = "delay"
	Success NoticeKind = "success"
	Doubt   NoticeKind = "unclear" // given up, and it is not known whether the upstream has it
)

// Notice is what a report must tell.
type Notice struct {
	Kind    NoticeKind
	Time    time.Time
	Message *Message // as it was before the outcome; About.Index points into its recipients
	// Content of the message where it is at hand, else nil: the store has it. It serves for the
	// returned header or message.
	Content mail.Content
	About   []About
	// RetryUntil is when we give up (Will-Retry-Until), in a delay report.
	RetryUntil time.Time
}

// About is one recipient in a report.
type About struct {
	Index   int
	Reply   mail.Reply // the last one, verbatim; zero where there never was one
	Host    string     // whose words Reply is; "": ours
	Stage   mail.Stage // at which Reply was given
	Doubts  int        // attempts that the upstream may have taken
	Expired bool       // given up because its time is over
}

// about lists the recipients that pick chooses.
func (dec *decision) about(pick func(i int, to Recipient) bool) (abouts []About) {
	for i, to := range dec.out.Recipients {
		if pick(i, to) {
			abouts = append(abouts, About{i, to.Reply, to.Host, to.Stage, to.Doubts, slices.Contains(dec.expired, i)})
		}
	}
	return abouts
}

// reportWait is how long past the end of its time a message is kept because its failure cannot be reported.
const reportWait = 24 * time.Hour

// reportResults makes the failure and success reports. A recipient whose failure cannot be reported
// becomes pending again, until reportWait is over: then the log and the trace have to do. A success stays one.
func (d *decider) reportResults(now time.Time, m *Message, c mail.Content, dec *decision) {
	became := func(status Status) []About {
		return dec.about(func(i int, to Recipient) bool {
			if status == Delivered && (to.Relayed || !wants(to.Notify, Success)) {
				return false // not ours to report, or not asked for
			}
			return m.Recipients[i].Status == Pending && to.Status == status
		})
	}
	failed, notice := became(Failed), Notice{Time: now, Message: m, Content: c}
	if !d.report(notice.of(Failure, failed), dec) {
		if expired(now.Add(-reportWait), m) {
			d.log.Error("the sender is not told of a failure: its report cannot be made",
				"id", m.ID, "from", m.Envelope.From.String())
			dec.events = append(dec.events, trace.Event{Kind: trace.Report, Class: string(Failure),
				Detail: "failure report given up: it could not be made"})
		} else {
			for _, a := range failed {
				dec.out.Recipients[a.Index].Status = Pending
			}
		}
	}
	d.report(notice.of(Success, became(Delivered)), dec)
	if !d.report(notice.of(Doubt, became(Unclear)), dec) { // another attempt could be another copy
		d.log.Error("the sender is not told that the delivery is unclear: the report cannot be made",
			"id", m.ID, "from", m.Envelope.From.String())
	}
}

func (n Notice) of(kind NoticeKind, about []About) Notice {
	n.Kind, n.About = kind, about
	return n
}

// reportDelay makes the delay report, once, when its time has come. Warned means that the time has passed,
// whether or not anybody wanted to know.
func (d *decider) reportDelay(now time.Time, m *Message, c mail.Content, dec *decision) {
	after := d.times.schedule.Load().WarnAfter
	if dec.out.Warned || after == 0 || now.Before(m.Received.Add(after)) {
		return
	}
	late := dec.about(func(_ int, to Recipient) bool { return to.Status == Pending && wants(to.Notify, Delay) })
	n := Notice{Kind: Delay, Time: now, Message: m, Content: c, About: late, RetryUntil: m.Expires}
	dec.out.Warned = d.report(n, dec)
}

// report adds one report to the outcome. False: it is due and could not be made.
func (d *decider) report(n Notice, dec *decision) bool {
	if len(n.About) == 0 {
		return true
	}
	became, err := d.makeIfDue(n, dec)
	dec.events = append(dec.events, trace.Event{Kind: trace.Report, Class: string(n.Kind),
		To: n.Message.Envelope.From.String(), Detail: string(n.Kind) + " report " + became})
	return err == nil
}

func (d *decider) makeIfDue(n Notice, dec *decision) (became string, err error) {
	n.About = slices.DeleteFunc(slices.Clone(n.About), func(a About) bool {
		return !wants(n.Message.Recipients[a.Index].Notify, n.Kind)
	})
	switch {
	case n.Message.Envelope.From.IsNull(): // RFC 5321 §4.5.5, RFC 3461 §6.1
		return "withheld: the reverse-path is null", nil
	case len(n.About) == 0:
		return "withheld: NOTIFY does not ask for it", nil
	}
	made, err := d.make(n)
	switch {
	case err != nil:
		d.log.Error("report not made", "id", n.Message.ID, "kind", n.Kind, "error", err)
		return "could not be made", err
	case made == nil:
		return "withheld: none is due", nil
	}
	d.times.fillIn(n.Time, made.Message)
	dec.out.Reports = append(dec.out.Reports, *made)
	return made.Message.ID + " queued", nil
}

// make makes a report. A panic in that, a fault of ours that the words of one upstream bring out, is a report that
// cannot be made: it must not end the service for all, again after each restart.
func (d *decider) make(n Notice) (made *NewMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("a report failed by a fault of ours", "id", n.Message.ID, "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			made, err = nil, errOwnFault
		}
	}()
	return d.makeReport(n)
}

var errOwnFault = errors.New("a fault of postern's own")
