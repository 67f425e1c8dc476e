package console

import (
	"strconv"

	"postern/admin/access"
	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
)

// steering is an action on messages of the queue, in words.
type steering struct {
	operate.Action
	label    key // on its button
	question key // with the number of messages
	meaning  key
	done     key // with the number of messages
	ask      key // for a reason; "" for none
	danger   bool
	sure     bool // it does no harm: one message needs no confirmation
}

// The actions on messages of the queue.
var (
	retrying = steering{Action: operate.Retry, label: "Try now", question: "Try %d messages now?",
		meaning: "They go out as soon as their provider takes them.", done: "%d messages are tried now.", sure: true}
	holding = steering{Action: operate.Hold, label: "Hold", question: "Hold %d messages?",
		meaning: "They stay in the queue until somebody releases them. Their senders are not told.",
		done:    "%d messages are held.", ask: "Reason, for whoever looks at the queue (may stay empty)"}
	releasing = steering{Action: operate.Release, label: "Release", question: "Release %d messages?",
		meaning: "They go out as soon as their provider takes them. What is not held stays as it is.",
		done:    "%d messages are released."}
	resending = steering{Action: operate.Resend, label: "Try failed recipients again",
		question: "Try the failed recipients of %d messages again?",
		meaning:  "Who was given up before is tried once more. Who has the message does not get it again.",
		done:     "The failed recipients of %d messages are tried again.", sure: true}
	bouncing = steering{Action: operate.Bounce, label: "Return to sender",
		question: "Return %d messages to their senders?",
		meaning:  "They are given up. Each sender gets a report that says so. This cannot be undone.",
		done:     "%d messages are being returned to their senders.", danger: true}
	deleting = steering{Action: operate.Delete, label: "Delete", question: "Delete %d messages?",
		meaning: "They are gone, and nobody is told. This cannot be undone.", done: "%d messages are deleted.",
		danger: true}
)

// buttonsOf are those that the visitor may press.
func buttonsOf(v *visit, all ...*steering) (shown []button) {
	for _, s := range all {
		if v.may(s.Operation) {
			shown = append(shown, button{"/queue/" + s.Verb, v.t(s.label), s.danger})
		}
	}
	return shown
}

// act is what the form of an action does: it asks for confirmation, then acts.
func act(s steering) func(*visit) (string, any, error) {
	return func(v *visit) (next string, body any, err error) {
		back := access.LocalPath(v.PostForm.Get("back"))
		chosen, err := selectionOf(v, mail.Cut(v.PostForm.Get("upto"), 100))
		if err != nil {
			return "", nil, err
		}
		switch n := len(chosen.ids); {
		case n == 0:
			v.leave("Nothing was chosen, or it is gone from the queue already.")
			return back, nil, nil
		case v.confirmed() && v.PostForm.Get("all") != "" && chosen.grown(v.PostForm.Get("expected")):
			v.leave("More is selected than you confirmed: look at it again. Nothing was done.")
			return back, nil, nil
		case !v.confirmed() && !(s.sure && n == 1):
			body, err = s.confirm(v, &chosen, back)
			return "", body, err
		}
		n, err := s.steer(v, chosen.ids)
		if err == nil {
			v.leave(s.done, n)
		}
		return back, nil, err
	}
}

// steer acts on messages, some at a time: each time is done whole, or not at all.
func (s *steering) steer(v *visit, ids []string) (total int64, err error) {
	reason := plain(maxNotice, v.PostForm.Get("reason"))
	if reason == "" && s.ask != "" {
		reason = v.t("by %s", plain(60, v.actor.Name))
	}
	defer v.console.shape.forget()
	defer v.console.held.forget()
	for len(ids) > 0 {
		some := ids[:min(len(ids), batch)]
		n, err := v.console.Operations.Queue.Do(v.Context(), v.actor, s.Action, queue.Filter{IDs: some},
			operate.Order{Reason: reason})
		if total += n; err != nil {
			return total, err
		}
		ids = ids[len(some):]
	}
	return total, nil
}

// grown reports whether there is more in it than was counted when it was asked for.
func (s *selection) grown(expected string) bool {
	n, err := strconv.ParseInt(expected, 10, 64)
	return err != nil || operate.CheckCount(int64(len(s.ids)), n) != nil
}

// confirm is the step in between.
func (s *steering) confirm(v *visit, chosen *selection, back string) (*confirmation, error) {
	n := len(chosen.ids)
	samples, err := samplesOf(v, chosen.ids)
	if err != nil {
		return nil, err
	}
	c := &confirmation{Question: v.t(s.question, n), Meaning: v.t(s.meaning), Verb: v.t(s.label), Danger: s.danger,
		Action: "/queue/" + s.Verb, Back: back, Fields: []field{{"back", back}}, Sample: samples,
		More: n - len(samples)}
	if chosen.more {
		c.Meaning += " " + v.t("There are more than %d: these are the oldest.", n)
	}
	if s.ask != "" {
		c.Ask = v.t(s.ask)
	}
	if v.PostForm.Get("all") != "" {
		c.Fields = append(append(c.Fields, fields(chosen.filter)...), field{"all", "1"}, field{"upto", chosen.ids[n-1]},
			field{"expected", strconv.Itoa(n)})
		return c, nil
	}
	for _, id := range chosen.ids {
		c.Fields = append(c.Fields, field{"id", id})
	}
	return c, nil
}
