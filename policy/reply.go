package policy

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"postern/mail"
)

// shownSenders is how many senders a refusal lists.
const shownSenders = 5

// SenderRefusal answers a reverse-path that the login may not use.
func (e *Effective) SenderRefusal(a mail.Address) mail.Reply {
	return mail.R(550, "5.7.1", "%s may not send as %s; %s", e.name(), a.Path(), e.mayUse())
}

// AuthorRefusal answers a message whose header names an author that the login may not use.
func (e *Effective) AuthorRefusal(a mail.Address) mail.Reply {
	return mail.R(550, "5.7.1", "the header says that the message is from %s, and %s may not send as that; %s",
		a.Path(), e.name(), e.mayUse())
}

// Senders are the patterns of senders that the subject may use, for people to read, and who set them: a rule, or "" for
// the account itself.
func (e *Effective) Senders() (list []string, rule string) {
	for i := range e.senders {
		p := &e.senders[i]
		if _, isAddress := p.address(e.Login); p.login && !isAddress {
			continue // {login}, and the login is no address
		}
		list = append(list, p.shown(e.Login))
	}
	return list, e.sendersRule
}

// mayUse says which senders are allowed.
func (e *Effective) mayUse() string {
	list, _ := e.Senders()
	where := e.sendersRule
	where = cmp.Or(where, "the login's own senders")
	if len(list) == 0 {
		return fmt.Sprintf("no sender is set for it in %s, and the login is not an address itself: "+
			"the administrator has to name one", where)
	}
	if more := len(list) - shownSenders; more > 0 {
		list = append(list[:shownSenders], fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("it may use %s (%s)", strings.Join(list, ", "), where)
}

// RecipientRefusal answers a forward-path that the login may not write to.
func (e *Effective) RecipientRefusal(a mail.Address) mail.Reply {
	_, denied := e.recipients.allows(folded(a), e.Login)
	if denied != nil {
		return mail.R(550, "5.7.1", "%s may not write to %s: %s has %q; the administrator can allow it",
			e.name(), a.Path(), e.recipientsRule, denied.text)
	}
	return mail.R(550, "5.7.1",
		"%s may not write to %s: it is not among the recipients of %s; the administrator can add it",
		e.name(), a.Path(), e.recipientsRule)
}

// LimitRefusal answers a message over a limit: which one, and when to retry. A message that can never pass is refused
// for good (550) whatever over_limit says.
func (e *Effective) LimitRefusal(v Verdict, now time.Time) mail.Reply {
	limit := fmt.Sprintf("limit %q of %s", v.Limit, e.limitsRule)
	switch {
	case v.Never:
		return mail.R(550, "5.7.1", "the message counts %s and can never pass the %s; send it in smaller parts",
			v.Limit.amount(v.Need), limit)
	case e.OverLimit == Refuse:
		return mail.R(550, "5.7.1", "%s reached; it is free again in %s", limit, wait(v.Retry.Sub(now)))
	case e.OverLimit == Lock:
		return mail.R(550, "5.7.1", "%s reached; the login is locked until the administrator unlocks it", limit)
	}
	return mail.R(452, "4.7.1", "%s reached; try again in %s", limit, wait(v.Retry.Sub(now)))
}

// HeldRefusal answers a message over a limit that would be held if not too much were held already.
func (e *Effective) HeldRefusal(v Verdict) mail.Reply {
	return mail.R(452, "4.7.1", "limit %q of %s reached, and no more mail of %s can be held "+
		"(max_held = %d, or its share of the store); try again when the administrator has released or deleted some",
		v.Limit, e.limitsRule, e.name(), e.MaxHeld)
}

func (e *Effective) name() string { return mail.Printable(mail.Cut(e.Login, 128)) }

// wait writes a duration for people, rounded up so that a retry then is not too early.
func wait(d time.Duration) string {
	units := func(d, unit time.Duration) int64 { return int64(math.Ceil(float64(d) / float64(unit))) }
	switch {
	case d <= time.Second:
		return "1 s"
	case d <= 2*time.Minute:
		return fmt.Sprintf("%d s", units(d, time.Second))
	case d <= 2*time.Hour:
		return fmt.Sprintf("%d min", units(d, time.Minute))
	case d <= 48*time.Hour:
		return fmt.Sprintf("%d h", units(d, time.Hour))
	}
	return fmt.Sprintf("%d days", units(d, 24*time.Hour))
}
