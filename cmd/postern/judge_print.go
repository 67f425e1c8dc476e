package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"postern/mail"
	"postern/relay/upstream/replies"
)

// matters say whose matter a class is.
var matters = map[string]string{
	mail.RecipientFault.String(): "the recipient's",
	mail.MessageFault.String():   "the message's",
	mail.Deferral.String():       "nobody's: it passes",
	mail.AccountFault.String():   "our account's at the provider",
	mail.BackPressure.String():   "the provider's patience: too much, at once or in a while",
}

// matter says whose matter it is.
func (r reading) matter() string {
	if r.Scope == replies.ScopeSender {
		return "the sender's: the provider does not let this address send"
	}
	return matters[r.Class]
}

// becomes says what happens to mail that gets an answer of this rule.
func becomes(r replies.Rule) string {
	switch {
	case r.Class == mail.RecipientFault:
		return "is refused for this recipient, who is reported to the sender; others get it"
	case r.Class == mail.MessageFault:
		return "is refused, and its sender is told"
	case r.Scope == replies.ScopeSender:
		return "of this sender waits in the queue, mail of others goes on; a person has to act"
	case r.Class == mail.AccountFault && r.Login:
		return "waits in the queue while another login is tried; if that does not help the account pauses and an " +
			"alert is raised"
	case r.Class == mail.AccountFault:
		return "of this account waits in the queue, or goes by the next upstream of its route; an alert is raised, " +
			"a person has to act"
	case r.Rest:
		return "goes on at once to those who were accepted, the rest in another transaction"
	case r.Class == mail.BackPressure && r.Slow:
		return "waits in the queue, and fewer connections are opened"
	case r.Class == mail.BackPressure && r.Quota > 0:
		return "of this account waits in the queue until what was sent leaves the window of the quota"
	case r.Class == mail.BackPressure:
		return "of this account waits in the queue while it backs off"
	}
	return "waits in the queue and is tried again"
}

// write tells a person.
func (j *judgement) write(w io.Writer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-8s %s\n", name, mail.Printable(fmt.Sprintf(format, args...)))
	}
	row("reply", "%s", strings.ReplaceAll(mail.Reply(j.Reply).String(), "\n", " "))
	row("stage", "%s", j.stageText())
	row("matter", "%s (%s)", j.matter(), j.Class)
	row("mail", "%s", j.Mail)
	row("rule", "%s", j.ruleText())
	if j.Quota > 0 {
		row("quota", "so much in %s is used up", j.Quota)
	}
	if j.RetryAfter > 0 {
		row("wait", "%s at least", j.RetryAfter)
	}
	for _, o := range j.Other {
		names := make([]string, len(o.Stages))
		for i, s := range o.Stages {
			names[i] = string(s)
		}
		row("else", "at %s: %s (%s), by %s", strings.Join(names, ", "), o.matter(), o.Class, o.ruleText())
	}
	if a := j.Advice; a != nil {
		fmt.Fprintf(&b, "\n      %s\n", a.Cause)
		writeFix(&b, a)
	}
	if j.Proposal != "" {
		fmt.Fprintf(&b, "\nIf it is not the message's fault, write behind its [[upstream]], with the class that is "+
			"right:\n\n%s", j.Proposal)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (j *judgement) stageText() string {
	i := slices.IndexFunc(replyStages, func(s replyStage) bool { return s.stage == j.Stage })
	text := string(j.Stage) + ", the reply to " + replyStages[i].what
	if !j.StageGiven {
		text += "; the likeliest, --stage was not given"
	}
	return text
}

func (r reading) ruleText() string {
	switch {
	case r.Rule == mail.RuleNone:
		return "none knows this reply"
	case r.From == "relay.toml":
		return r.Rule + ", of relay.toml"
	case strings.HasPrefix(r.From, "profile "):
		return r.Rule + ", of the " + r.From
	}
	return r.Rule + ", which holds for every provider"
}
