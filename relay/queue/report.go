package queue

import (
	"slices"
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
	made, err := d.makeReport(n)
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
