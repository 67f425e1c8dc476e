package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/trace"
	"postern/relay/upstream"
	"postern/relay/upstream/advice"
)

const (
	// identityGrace is how long a sender's own mailbox must be refused before an alert: without a mailbox, its mail
	// goes as the username.
	identityGrace = time.Minute
	// refusalLife is how long the alert about a refused sender stays open without another refusal; the queue retries at
	// least daily.
	refusalLife  = 25 * time.Hour
	maxAttempted = 1000
)

// attempted names the upstream, the identity we used there, and the sender of an attempt.
type attempted struct{ upstream, identity, from string }

// upstreams opens alerts for paused identities and closes them. An identity that has not been tried yet, after a
// restart or a reload, proves nothing: an alert closes only when an identity that was seen paused here works again, or
// when mail is delivered.
func (m *Monitor) upstreams(routes *outbound.Routes, now time.Time) {
	seen := make(map[*outbound.Upstream]map[string]bool)
	for _, up := range routes.Upstreams {
		before := m.paused[up]
		is := make(map[string]bool)
		for _, id := range up.States() {
			elsewhere := up.SentAsUsername(id.Identity, now)
			switch {
			case id.Status == upstream.BackingOff || id.Status == upstream.Paused && elsewhere:
				is[id.Identity] = before[id.Identity] && !elsewhere
			case id.Status == upstream.Paused:
				is[id.Identity] = true
				if id.Identity == up.Config.Username || now.Sub(id.Since) >= identityGrace {
					c := pausedCondition(up.Config, id)
					describeStorm(up, &c, id.Identity, id.Reply)
					m.alerter.Begin(c)
				}
			}
		}
		for identity := range before {
			if !is[identity] {
				m.alerter.End(alert.UpstreamPaused, pausedSubject(up.Config.Name, identity), "")
			}
		}
		seen[up] = is
	}
	m.paused = seen
	m.attempts(routes, now)
	open := m.alerter.Open(alert.UpstreamPaused)
	for _, c := range open {
		name := c.Details["upstream"]
		if name != "" && !slices.ContainsFunc(routes.Upstreams,
			func(u *outbound.Upstream) bool { return u.Config.Name == name }) {
			m.alerter.End(alert.UpstreamPaused, c.Subject, "Upstream "+name+" is not in the configuration any more.")
		}
	}
	m.open.Store(len(open) > 0)
}

// attempts closes the alerts that deliveries disprove, and opens one for each sender whose mail an upstream refuses
// although it accepts our login.
func (m *Monitor) attempts(routes *outbound.Routes, now time.Time) {
	m.mu.Lock()
	refusals, delivered := m.refusals, m.delivered
	m.refusals, m.delivered = nil, nil
	m.mu.Unlock()
	for _, up := range routes.Upstreams {
		for at := range delivered {
			if at.upstream != up.Config.Name {
				continue
			}
			m.alerter.End(alert.UpstreamPaused, refusedSubject(at.upstream, at.from), "")
			if !m.paused[up][at.identity] {
				m.alerter.End(alert.UpstreamPaused, pausedSubject(at.upstream, at.identity), "")
			}
		}
		for at, e := range refusals {
			if at.upstream == up.Config.Name && !m.paused[up][at.identity] && isTold(up, e) {
				c := refusedCondition(up.Config, e, now)
				describeStorm(up, &c, e.Identity, e.Reply)
				m.alerter.Begin(c)
			}
		}
	}
}

// attempted notes, for the next look, a result that may open or close an alert. It costs nothing for a message that is
// delivered while no alert is open.
func (m *Monitor) attempted(e trace.Event) {
	good := e.Kind == trace.Delivered && m.open.Load()
	bad := e.Class == mail.AccountFault.String() && mail.Stage(e.Stage).InTransaction()
	if !good && !bad {
		return
	}
	at := attempted{e.Upstream, e.Identity, e.From}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.refusals, at)
	delete(m.delivered, at)
	switch {
	case len(m.refusals)+len(m.delivered) >= maxAttempted: // until the next look
	case good && m.delivered == nil:
		m.delivered = map[attempted]bool{at: true}
	case good:
		m.delivered[at] = true
	case m.refusals == nil:
		m.refusals = map[attempted]trace.Event{at: e}
	default:
		m.refusals[at] = e
	}
}

func pausedSubject(upstream, identity string) string {
	if identity == "" {
		return "upstream " + upstream
	}
	return "upstream " + upstream + " as " + identity
}

func refusedSubject(upstream, from string) string {
	return "upstream " + upstream + ", sender " + from
}

func pausedCondition(u config.Upstream, st upstream.State) alert.Condition {
	c := alert.Condition{
		Event: alert.UpstreamPaused, Subject: pausedSubject(u.Name, st.Identity), Group: "upstream " + u.Name,
		Over: "It works again: mail flows.",
		Details: map[string]string{
			"upstream": u.Name, "identity": st.Identity, "provider": u.Provider, "host": u.Host,
			"reply": st.Reply.String(), "since": clock(st.Since), "next_try": clock(st.Until),
		},
	}
	c.Summary = fmt.Sprintf("The provider does not take our mail because of the account: %q. Nothing is lost: the "+
		"mail waits, or takes the next upstream of its route, and this one is tried again at %s.",
		st.Reply.String(), st.Until.UTC().Format("15:04 MST"))
	advise(&c, u, advice.For(u.Provider, advice.AnyStage, st.Reply), st.Identity, "")
	return c
}

func refusedCondition(u config.Upstream, e trace.Event, now time.Time) alert.Condition {
	c := alert.Condition{
		Event: alert.UpstreamPaused, Subject: refusedSubject(u.Name, e.From), Group: "senders at upstream " + u.Name,
		Summary: fmt.Sprintf("The provider does not let us send as %s: %q. Nothing is lost: mail of this sender "+
			"waits and is tried again; that of others flows.", e.From, e.Reply.String()),
		Over:  "It is not refused any more, or nothing from this sender has been tried for a day.",
		Until: now.Add(refusalLife),
		Details: map[string]string{
			"upstream": u.Name, "identity": e.Identity, "provider": u.Provider, "host": u.Host,
			"reply": e.Reply.String(), "sender": e.From, "login": e.Login, "since": clock(e.Time),
		},
	}
	advise(&c, u, advice.For(u.Provider, mail.Stage(e.Stage), e.Reply), e.Identity, e.From)
	return c
}

// advise adds the known fix to an alert, or says where to look.
func advise(c *alert.Condition, u config.Upstream, known *advice.Advice, identity, sender string) {
	if known == nil {
		c.Summary += fmt.Sprintf(" What to do: look at the account at the provider, then run: postern upstream test %s",
			u.Name)
		return
	}
	known = known.Filled(identity, sender)
	c.Summary += " " + known.Cause + " What to do: " + strings.Join(known.Fix, " ")
	c.Details["cause"], c.Details["fix"], c.Details["source"] = known.Cause, strings.Join(known.Fix, "\n"), known.Source
}

// describeStorm adds to an alert what is known about the bounce storm that its reply belongs to, if any.
func describeStorm(up *outbound.Upstream, a *alert.Condition, identity string, r mail.Reply) {
	s, ok := up.Storms().About(identity, r)
	if !ok {
		return
	}
	whose := "mail of several logins"
	if s.Sender != "" {
		whose = "all mail of " + s.Sender
	} else if len(s.Logins) < 2 {
		whose = "mail to several domains"
	}
	a.Summary = fmt.Sprintf("The provider refuses %s with one text, and hardly anything gets through: %q. No rule "+
		"knows this text; so many refusals point to the account and not to the messages, so they are not believed. "+
		"Nothing bounces any more, the mail waits or takes the next "+
		"upstream of its route, and one message at a time tries again.", whose, r.String())
	a.Details["kept"] = fmt.Sprint(s.Kept)
	a.Details["logins"], a.Details["domains"] = strings.Join(s.Logins, ", "), strings.Join(s.Domains, ", ")
	if up.Config.ByGraph() {
		a.Summary += " What to do: look at the account at the provider. If these messages are to blame after all, " +
			"end them one by one with: postern queue bounce ID."
		return
	}
	a.Summary += fmt.Sprintf(" What to do: look at the account at the provider, then write the rule below into "+
		"relay.toml, behind the [[upstream]] named %q. "+
		"If the messages are to blame after all, write class = \"message-fault\" in it: they go back to their "+
		"senders then. One alone goes back with: postern queue bounce ID.",
		up.Config.Name)
	a.Block = s.Rule()
}

// isTold reports whether an alert about a refused sender is due. While a refusal is not believed, it concerns one
// sender only if the storm does.
func isTold(up *outbound.Upstream, e trace.Event) bool {
	if e.Rule != upstream.RuleStorm {
		return true
	}
	s, ok := up.Storms().About(e.Identity, e.Reply)
	return ok && s.Sender != ""
}
