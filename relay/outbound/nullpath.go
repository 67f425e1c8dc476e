package outbound

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/upstream/profile"
)

// Reports and read receipts have a null reverse-path (RFC 5321 §4.5.5). Many providers refuse it, or let nobody send
// but the account that we log in as; a report that they do not take tells nobody anything.

// nullRefusedFor is how long an upstream is known to refuse the null reverse-path. Then it is tried again.
const nullRefusedFor = 24 * time.Hour

// nullRetry is the delay before a message whose null reverse-path was refused is sent with an address instead.
const nullRetry = time.Second

const noteNullRefused = "the upstream refused the null reverse-path: the next attempt gives an address instead"

// nullPath remembers whether an upstream refused the null reverse-path.
type nullPath struct{ refused atomic.Int64 } // when, in Unix nanoseconds

func (n *nullPath) isRefused(now time.Time) bool {
	at := n.refused.Load()
	return at != 0 && now.Sub(time.Unix(0, at)) < nullRefusedFor
}

// reversePath is the reverse-path that a message gets at an upstream. A null one becomes bounce_from, or, where the
// upstream refuses it, an address that it lets send.
func (u *Upstream) reversePath(m *queue.Message, bounceFrom mail.Address, now time.Time) mail.Address {
	switch {
	case !m.Envelope.From.IsNull():
		return m.Envelope.From
	case !bounceFrom.IsNull():
		return bounceFrom
	case u.Config.NullSender == profile.NullAccepted,
		u.Config.NullSender != profile.NullRefused && !u.nullPath.isRefused(now) && !u.hasRefused(m):
		return mail.Address{}
	case m.Login == "" && len(m.Recipients) > 0:
		return ReportSender(u.Config, m.Recipients[0].To)
	}
	return m.Author // a login's own receipt: policy has checked its author
}

// hasRefused reports that the last attempt at this upstream ended with a permanent refusal that learnNull did not let
// count. A login that was refused, or another upstream, says nothing of the null reverse-path.
func (u *Upstream) hasRefused(m *queue.Message) bool {
	return slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool {
		return r.Status == queue.Pending && r.Reply.Permanent() && r.Upstream == u.Config.Name &&
			r.Stage.InTransaction()
	})
}

// ReportSender returns an address that an upstream accepts as the sender of reports to a sender of ours, if it refuses
// the null reverse-path.
func ReportSender(u config.Upstream, to mail.Address) mail.Address {
	account, err := mail.ParseAddress(u.Username)
	switch {
	case err == nil && (u.SenderRule == profile.SenderMustMatch || u.SenderRule == profile.SenderAny):
		return account
	case u.SenderRule == profile.SenderMustMatch:
		return to // as whom the upstream takes mail
	}
	return mail.Address{Local: "postmaster", Domain: to.Domain}
}

// learnNull looks for refusals among the results of an attempt with a null reverse-path. They become deferrals: the
// next attempt gives an address instead, and what that one is told counts.
func (u *Upstream) learnNull(results []mail.Result, now time.Time) {
	if u.Config.NullSender == profile.NullAccepted {
		return
	}
	for i := range results {
		r := &results[i]
		if !u.refusesNull(r) {
			continue
		}
		if r.Class != mail.RecipientFault {
			u.nullPath.refused.Store(now.UnixNano())
		}
		r.Class, r.RetryAfter = mail.Deferral, nullRetry
		r.Note = strings.TrimPrefix(r.Note+"; "+noteNullRefused, "; ")
	}
}

// refusesNull reports a refusal that may be about the null reverse-path.
func (u *Upstream) refusesNull(r *mail.Result) bool {
	switch {
	case !r.Verbatim || !r.Stage.InTransaction():
		return false
	case r.Class == mail.AccountFault:
		return r.Reply.Permanent() && (r.Stage == mail.StageMail || r.OfSender)
	}
	return r.Class.Permanent()
}

// reportAuthor is the header author of a report to a sender of ours: bounce_from, else an address that the upstream of
// its route lets send, else the postmaster of this host.
func (r *Routes) reportAuthor(report *queue.Message) mail.Address {
	if !r.bounceFrom.IsNull() {
		return r.bounceFrom
	}
	to := report.Recipients[0].To
	if route := r.routeFor(report, to); len(route) > 0 {
		up := route[0]
		if up.Config.SenderRule != profile.SenderAny || up.Config.NullSender == profile.NullRefused {
			return ReportSender(up.Config, to)
		}
	}
	return mail.Address{Local: "postmaster", Domain: r.hostname}
}
