package console

import (
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
	"postern/relay/trace"
)

// timelineView is the story of a message, or of a session.
type timelineView struct {
	Heading    string // what it is
	Name       string
	IsMessage  bool
	From, To   string
	More       int // recipients beside To
	Login      string
	Author     string
	MessageID  string
	Client     string
	Listener   string
	Size       int64
	Why        verdict
	Advice     []ways
	Unknown    bool // no reply rule knows the answer
	Queued     *messageRow
	Recipients []recipientRow // while it is in the queue
	Buttons    []button
	Reading    []button // of what people wrote
	Here       string
	Back       string // to the list, as it was searched
	Searched   bool   // something was asked of it
	Busy       bool   // an attempt is under way or due: the page looks again by itself
	Steps      []step
	Cut        bool // there are older events
}

// Title implements titled.
func (t *timelineView) Title() string { return t.Heading + " " + t.Name }

// recipientRow is a recipient of a message in the queue.
type recipientRow struct {
	To, Upstream, Reply string
	Icon, Word          string
}

// step is one event.
type step struct {
	*trace.Event
	Icon, Word string
	After      time.Duration // the event before
	First      bool
	Who        string
	Answer     string // the reply, line by line
	Theirs     bool   // it is the upstream's
}

func showTimeline(v *visit) (any, error) {
	name := mail.Cut(v.PathValue("name"), maxWords)
	v.console.Operations.Trace.Await(v.Context())
	events, more, err := v.console.Operations.Trace.Timeline(v.Context(), v.actor, name)
	if err != nil {
		return nil, err
	}
	m, err := v.console.Operations.Queue.Get(v.Context(), v.actor, name)
	if kind, theirs := operate.KindOf(err); theirs && kind == operate.NotFound {
		m, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(events) == 0 && m == nil {
		return nil, &operate.Error{Kind: operate.NotFound,
			Msg: v.t("Nothing is known of %s. It may be older than the history that is kept.", plain(100, name))}
	}
	view := &timelineView{Name: plain(100, name), Here: v.here(), Cut: more}
	search := asked(v.URL.Query())
	view.Back, view.Searched = with("/messages", search), len(search) > 0
	view.tell(v, events)
	if m != nil {
		view.queued(v, m)
	}
	view.Heading = v.t("Connection")
	if view.IsMessage {
		view.Heading = v.t("Message")
	}
	view.Why = why(v, events, m)
	advised := operate.Advise(latest(events))
	if view.Busy {
		return view, nil // advice would be about the attempt before
	}
	for i := range advised {
		view.Advice = append(view.Advice, waysOf(v, &advised[i], replyOf(latest(events))))
	}
	view.Unknown = len(view.Advice) == 0 && operate.Unknown(latest(events)) != nil
	return view, nil
}

// replyOf is the last answer among events.
func replyOf(events []trace.Event) string {
	for i := len(events) - 1; i >= 0; i-- {
		if r := events[i].Reply.String(); r != "" {
			return r
		}
	}
	return ""
}

// latest are the events from the last attempt on: advice about what has passed is no help.
func latest(events []trace.Event) []trace.Event {
	for i := len(events) - 1; i >= 0; i-- {
		if k := events[i].Kind; k == trace.Attempt || k == trace.Deferred || k == trace.Failed {
			return events[i:]
		} else if k == trace.Delivered {
			return nil
		}
	}
	return nil
}

// tell makes the steps, and gathers what is known of the message.
func (t *timelineView) tell(v *visit, events []trace.Event) {
	to := map[string]bool{}
	for i := range events {
		e := &events[i]
		s := step{Event: e, First: i == 0, Who: strings.TrimSpace(e.Login + " " + e.Client), Theirs: e.Upstream != ""}
		s.Icon, s.Word = v.kind(e.Kind)
		if i > 0 {
			s.After = e.Time.Sub(events[i-1].Time)
		}
		s.Answer = verbatim(e.Reply)
		t.Steps = append(t.Steps, s)
		for _, each := range []struct {
			have *string
			more string
		}{{&t.From, e.From}, {&t.To, e.To}, {&t.Login, e.Login}, {&t.Author, e.Author}, {&t.MessageID, e.MessageID},
			{&t.Client, e.Client}, {&t.Listener, e.Listener}} {
			if *each.have == "" {
				*each.have = each.more
			}
		}
		t.IsMessage = t.IsMessage || e.ID != ""
		t.Size = max(t.Size, e.Size)
		if e.To != "" && len(to) < recipients {
			to[e.To] = true
		}
	}
	t.More = max(0, len(to)-1)
}

// verbatim is a reply as it was given, a line each, printable.
func verbatim(r mail.Reply) string {
	if r.IsZero() {
		return ""
	}
	head := mail.Printable(mail.Reply{Code: r.Code, Enhanced: r.Enhanced}.String())
	lines := strings.Split(mail.Cut(r.Text, maxReply), "\n")
	for i, line := range lines {
		lines[i] = head + " " + mail.Printable(line)
	}
	return strings.Join(lines, "\n")
}

// maxReply bounds what a page shows of a reply, in octets.
const maxReply = 4096

// queued adds what the queue knows.
func (t *timelineView) queued(v *visit, m *queue.Message) {
	row := rowOf(v, m)
	t.Queued, t.IsMessage, t.Login, t.MessageID, t.Size = &row, true, m.Login, m.MessageID, m.Size
	t.From, t.To, t.More = row.From, row.To, row.More
	if t.Author == "" {
		t.Author = m.Author.String()
	}
	state := operate.StateOf(m, v.now)
	t.Busy = state == operate.IsTried || state == operate.IsDue && !m.NextAttempt.After(v.now)
	if m.Held {
		t.Buttons = buttonsOf(v, &releasing, &bouncing, &deleting)
	} else {
		t.Buttons = buttonsOf(v, &retrying, &holding, &bouncing, &deleting)
	}
	if v.may(showHeader.needs) {
		t.Reading = append(t.Reading, button{showHeader.path, v.t("Show header fields"), false})
	}
	if v.may(fetchRaw.needs) {
		t.Reading = append(t.Reading, button{fetchRaw.path, v.t("Download the message"), false})
	}
	failed := func(r queue.Recipient) bool { return r.Status == queue.Failed }
	if slices.ContainsFunc(m.Recipients, failed) {
		t.Buttons = append(buttonsOf(v, &resending), t.Buttons...)
	}
	for i := range m.Recipients[:min(len(m.Recipients), recipients)] {
		t.Recipients = append(t.Recipients, recipientRowOf(v, &m.Recipients[i]))
	}
}

func recipientRowOf(v *visit, r *queue.Recipient) recipientRow {

	each := recipientRow{To: shown(r.To), Upstream: plain(80, r.Upstream), Reply: plain(600, r.Reply.String())}
	switch r.Status {
	case queue.Delivered:
		each.Icon, each.Word = "ok", v.t("handed over")
	case queue.Failed:
		each.Icon, each.Word = "bad", v.t("given up")
	case queue.Unclear:
		each.Icon, each.Word = "warn", v.t("unclear")
	default:
		each.Icon, each.Word = "wait", v.t("waiting")
	}
	return each
}

// why says in a sentence how it stands.
func why(v *visit, events []trace.Event, m *queue.Message) verdict {
	if m != nil {
		return whyQueued(v, m)
	}
	told := func(e trace.Event) bool { return e.Kind != trace.Report && e.Kind != trace.Operator }
	last := len(events) - 1
	for i := last; i >= 0; i-- {
		if told(events[i]) {
			last = i
			break
		}
	}
	some := func(e trace.Event) bool { return e.Kind == trace.Failed || e.Kind == trace.Unclear }
	if events[last].Kind == trace.Delivered && slices.ContainsFunc(events, some) {
		return verdict{Icon: "warn", Text: v.t("Handed over, but not for every recipient.")}
	}
	return whyGone(v, &events[last])
}

// whyGone says what the last event means.
func whyGone(v *visit, e *trace.Event) verdict {
	by := plain(80, e.Upstream)
	switch e.Kind {
	case trace.Delivered:
		return verdict{Icon: "ok", Text: v.t("Handed over: %s has taken it.", by)}
	case trace.Failed:
		return verdict{Icon: "bad", Text: v.t("It was given up; the sender has been told, where that was possible.")}
	case trace.Unclear:
		return verdict{Icon: "warn", Text: v.t("It was given up without knowing whether %s has it.", by)}
	case trace.Refused:
		return verdict{Icon: "bad", Text: v.t("The connection was refused before any message was handed in.")}
	case trace.AuthFail:
		return verdict{Icon: "bad", Text: v.t("The login was refused, so no message could be handed in.")}
	case trace.Rejected:
		return verdict{Icon: "bad",
			Text: v.t("The message was refused when it was handed in; the program that sent it was told why."),
			More: refusedBecause(v, e.Reply.Code, e.Reply.Enhanced, e.Reply.Text, e.To)}
	case trace.Operator:
		return verdict{Icon: "person", Text: v.t("Somebody acted on it by hand; it is no longer in the queue.")}
	}
	return verdict{Icon: "info", Text: v.t("It is no longer in the queue.")}
}

func whyQueued(v *visit, m *queue.Message) verdict {
	switch operate.StateOf(m, v.now) {
	case operate.IsHeld:
		held := verdict{Icon: "hold", Text: v.t("It is held until somebody releases it.")}
		if m.HoldReason != "" {
			by := heldByOf(v, m.Login, m.HoldReason)
			held.More, held.Path = append([]string{by.Text}, by.Do...), by.Path
		}
		return held
	case operate.IsReturned:
		return verdict{Icon: "out", Text: v.t("It is being returned to its sender.")}
	case operate.IsTried:
		return verdict{Icon: "out", Text: v.t("An attempt to deliver it is under way.")}
	case operate.Sleeps:
		return verdict{Icon: "wait", Text: v.t("It waits until %s works again, and then leaves by itself.", plain(120,
			m.WaitingFor))}
	}
	if m.Attempts == 0 {
		return verdict{Icon: "wait", Text: v.t("It is in the queue and has not been tried yet.")}
	}
	return verdict{Icon: "wait", Text: v.t("It could not be delivered yet and is tried again by itself.")}
}
