package queue

import (
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// NoticeKind is what a report tells.
type NoticeKind string

// The kinds of reports. A message may need several after one attempt.
const (
	Failure NoticeKind = "failure"
	Delay   NoticeKind = "delay"
	Success NoticeKind = "success"
	Doubt   NoticeKind = "unclear" // given up, and it is not known whether the upstream has it
)

// The values of the Action field (RFC 3464 §2.3.3) that occur here.
const (
	FailedAction  = "failed"
	DelayedAction = "delayed"
	UnclearAction = "unclear" // no value of RFC 3464's says so: the report says delayed
	Relayed       = "relayed" // taken by an upstream that makes no reports (RFC 3461 §5.2.2)
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
	Index    int
	Action   string
	Status   string     // of the report (RFC 3463); not always the one in Reply
	Reply    mail.Reply // the upstream's last reply, verbatim; zero where there never was one
	Upstream string
	Host     string     // whose words Reply is; "": ours
	Stage    mail.Stage // at which Reply was given
	Last     time.Time
	Relayed  bool // the upstream took over the duty to report success
	Doubts   int  // attempts that the upstream may have taken
}

func aboutResult(r mail.Result, action string) About {
	return About{
		Index: r.Recipient, Action: action, Status: statusOf(r.Reply, action),
		Reply: r.Reply, Upstream: r.Upstream, Host: r.SaidBy(), Stage: r.Stage, Relayed: r.RelayedDSN,
	}
}

// statusOf is the enhanced status code of a reply, or the general one of an action where the upstream
// gave none or one that contradicts (RFC 3463 §2).
func statusOf(r mail.Reply, action string) string {
	general, class := "4.0.0", byte('4')
	switch action {
	case FailedAction:
		general, class = "5.0.0", '5'
	case Relayed:
		general, class = "2.0.0", '2'
	}
	if r.Enhanced == "" || r.Enhanced[0] != class {
		return general
	}
	return r.Enhanced
}

// wants reports whether a recipient's NOTIFY asks for a kind of report (RFC 3461 §4.1). Absent, it means
// failure, and delay at our discretion: we tell.
func wants(n mail.Notify, k NoticeKind) bool {
	if n == 0 {
		return k != Success
	}
	switch k {
	case Failure:
		return n&mail.NotifyFailure != 0
	case Delay:
		return n&mail.NotifyDelay != 0
	case Doubt:
		return n&(mail.NotifyFailure|mail.NotifyDelay) != 0
	}
	return n&mail.NotifySuccess != 0
}

func wantsDelayReport(m *Message) bool {
	if m.Envelope.From.IsNull() {
		return false
	}
	for _, to := range m.Recipients {
		if to.Status == Pending && wants(to.Notify, Delay) {
			return true
		}
	}
	return false
}

// reportPatience is how long past the end of its time a message is kept because its failure cannot be reported.
const reportPatience = 24 * time.Hour

// reportResults makes the failure and success reports. A recipient whose failure cannot be reported
// becomes pending again, until reportPatience is over: then the log and the trace have to do. A success stays one.
func (d *decider) reportResults(now time.Time, m *Message, c mail.Content, abouts []About, dec *decision) {
	var failed, delivered, unclear []About
	for _, a := range abouts {
		a.Last = now
		switch {
		case a.Action == FailedAction:
			a.Doubts = dec.out.Recipients[a.Index].Doubts
			failed = append(failed, a)
		case a.Action == UnclearAction:
			unclear = append(unclear, a)
		case !a.Relayed && wants(m.Recipients[a.Index].Notify, Success):
			delivered = append(delivered, a)
		}
	}
	if !d.report(Notice{Kind: Failure, Time: now, Message: m, Content: c, About: failed}, dec) {
		if expired(now.Add(-reportPatience), m) {
			d.log.Error("the sender is not told of a failure: its report cannot be made", "id", m.ID, "from", m.Envelope.From.String())
			dec.events = append(dec.events, trace.Event{Kind: trace.Report, Class: string(Failure), Detail: "failure report given up: it could not be made"})
		} else {
			for _, a := range failed {
				dec.out.Recipients[a.Index].Status = Pending
			}
		}
	}
	d.report(Notice{Kind: Success, Time: now, Message: m, Content: c, About: delivered}, dec)
	if !d.report(Notice{Kind: Doubt, Time: now, Message: m, Content: c, About: unclear}, dec) { // another attempt could be another copy
		d.log.Error("the sender is not told that the delivery is unclear: the report cannot be made", "id", m.ID, "from", m.Envelope.From.String())
	}
}

// reportDelay makes the delay report, once, when its time has come. Warned means that the time has passed,
// whether or not anybody wanted to know.
func (d *decider) reportDelay(now time.Time, m *Message, c mail.Content, dec *decision) {
	after := d.times.schedule.Load().WarnAfter
	if dec.out.Warned || after == 0 || now.Before(m.Received.Add(after)) {
		return
	}
	var abouts []About
	for i, to := range dec.out.Recipients {
		if to.Status == Pending && wants(to.Notify, Delay) {
			abouts = append(abouts, About{
				Index: i, Action: DelayedAction, Status: statusOf(to.Reply, DelayedAction),
				Reply: to.Reply, Upstream: to.Upstream, Host: to.Host, Stage: to.Stage, Last: now,
			})
		}
	}
	if len(abouts) == 0 {
		dec.out.Warned = true
		return
	}
	dec.out.Warned = d.report(Notice{Kind: Delay, Time: now, Message: m, Content: c, About: abouts, RetryUntil: m.Expires}, dec)
}

// report adds one report to the outcome. False: it is due and could not be made.
func (d *decider) report(n Notice, dec *decision) bool {
	if len(n.About) == 0 {
		return true
	}
	event := trace.Event{Kind: trace.Report, Class: string(n.Kind)}
	if n.Message.Envelope.From.IsNull() { // RFC 5321 §4.5.5, RFC 3461 §6.1
		event.Detail = string(n.Kind) + " report withheld: the reverse-path is null"
		dec.events = append(dec.events, event)
		return true
	}
	event.To = n.Message.Envelope.From.String()
	wanted := n.About[:0:0]
	for _, a := range n.About {
		if wants(n.Message.Recipients[a.Index].Notify, n.Kind) {
			wanted = append(wanted, a)
		}
	}
	if len(wanted) == 0 {
		event.Detail = string(n.Kind) + " report withheld: NOTIFY does not ask for it"
		dec.events = append(dec.events, event)
		return true
	}
	n.About = wanted
	made, err := d.makeReport(n)
	switch {
	case err != nil:
		event.Detail = string(n.Kind) + " report could not be made"
		d.log.Error("report not made", "id", n.Message.ID, "kind", n.Kind, "error", err)
	case made == nil:
		event.Detail = string(n.Kind) + " report withheld: none is due"
	default:
		d.times.fillIn(n.Time, made.Message)
		dec.out.Reports = append(dec.out.Reports, *made)
		event.Detail = string(n.Kind) + " report " + made.Message.ID + " queued"
	}
	dec.events = append(dec.events, event)
	return err == nil
}
