package console

import (
	"fmt"
	"regexp"
	"strings"

	"postern/operate"
	"postern/policy"
	"postern/relay/queue"
)

// overLimit is what package policy says of a message over a limit. When it is free again was true at that moment only.
var overLimit = regexp.MustCompile(`^limit "([^"]{1,100})" of policy (\d{1,4}) reached; try again in .*$`)

// heldBy is why a message is held, in words.
type heldBy struct {
	Text string
	Do   []string // what to do, a sentence each; none where only a person knows
	Path string   // where the limit is set
}

// heldByOf reads the reason for which a message of a login is held.
func heldByOf(v *visit, login, reason string) heldBy {
	found := overLimit.FindStringSubmatch(reason)
	if found == nil {
		return heldBy{Text: v.said(plain(400, reason)).Text}
	}
	limit, err := policy.ParseLimit(found[1])
	if err != nil {
		return heldBy{Text: plain(400, reason)}
	}
	c := v.console.Operations.Accounts.Config()
	at := c.Problem(fmt.Sprintf("policy[%s].limits", found[2]), "")
	where := v.t("policy %s", found[2])
	if at.Line > 0 && c.Path() != "" {
		where = v.t("line %d of relay.toml", at.Line)
	}
	h := heldBy{Text: v.t("%s sent more than it may: %s (%s).", plain(120, login), limitWords(v, limit), where)}
	h.Do = []string{
		v.t("If the mail is wanted, release it.") + " " +
			v.t("If you do not know it, look whether the password of the login was stolen."),
		v.t("So that it does not happen again, raise the limit there."),
	}
	if v.may(operate.SeeSettings) {
		h.Path = "/settings?q=limits"
	}
	return h
}

// limitWords are a limit as people say it.
func limitWords(v *visit, l policy.Limit) string {
	per := v.span(l.Window)
	switch l.Unit {
	case policy.Bytes:
		return v.t("%s in %s", v.size(l.Count), per)
	case policy.Recipients:
		return v.t("%d recipients in %s", int(l.Count), per)
	case policy.NewRecipients:
		return v.t("%d new recipients in %s", int(l.Count), per)
	}
	return v.t("%d messages in %s", int(l.Count), per)
}

// heldAmong are those of messages that are held.
func heldAmong(v *visit, ids []string) (held map[string]bool, err error) {
	if len(ids) == 0 || !v.may(operate.SeeQueue) {
		return nil, nil
	}
	messages, err := v.console.Operations.Queue.List(v.Context(), v.actor, queue.Filter{IDs: ids, Held: true})
	held = make(map[string]bool, len(messages))
	for _, m := range messages {
		held[m.ID] = m.Held
	}
	return held, err
}

// heldOf counts what is held of a login, up to most.
func heldOf(v *visit, login string) (int, error) {
	if !v.may(operate.SeeQueue) {
		return 0, nil
	}
	messages, err := v.console.Operations.Queue.List(v.Context(), v.actor,
		queue.Filter{Login: login, Held: true, Limit: queueList})
	return len(messages), err
}

// refusedBecause says what a refusal at the moment of handing in means, by what package policy and the protocol say.
func refusedBecause(v *visit, code int, enhanced, text, to string) (lines []string) {
	to = plain(200, to)
	switch {
	case code/100 == 4:
		lines = append(lines, v.t("It was not taken just then: the program that sent it tries again by itself."))
	case strings.HasPrefix(enhanced, "5.1.1") && to != "":
		lines = append(lines, v.t("The address %s does not exist. Check how it is written, and send it again.", to))
	case strings.HasPrefix(enhanced, "5.1.2") && to != "":
		lines = append(lines, v.t("The domain of %s takes no mail, or does not exist. Check how it is written.", to))
	case strings.HasPrefix(enhanced, "5.3.4"):
		lines = append(lines, v.t("The message is too large. Send the attachment in another way."))
	case strings.Contains(text, " may not send as "), strings.Contains(text, "and the login is not an address itself"):
		lines = append(lines, v.t("The login may not use this sender.")+" "+
			v.t("Add the sender to the login, or let the program use one that it has."))
	case strings.Contains(text, " may not write to "):
		lines = append(lines, v.t("A rule in relay.toml forbids the login to write to this address."))
	case strings.HasPrefix(text, "limit "):
		lines = append(lines, v.t("The login sent more than it may. Wait, or raise the limit."))
	}
	return lines
}
