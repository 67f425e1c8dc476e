package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"postern/internal/suggest"
	"postern/policy"
	"postern/relay/upstream"
	"postern/relay/upstream/graph"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/smtp"
)

// applyProfile gives every key of a block that was not written what the provider's profile says.
func applyProfile(c *Config, u *Upstream, key string) {
	p, ok := profile.Get(u.Provider)
	if !ok { // validation says so
		p, _ = profile.Get(profile.Generic)
	}
	written := func(name string) bool { return c.doc.has(key + "." + name) }
	if u.Proxy.ref() == "" {
		u.Proxy = Secret{} // "" is none
	}
	applyPort(c, u, p, written("port"), written("tls"))
	setDefault(&u.Host, written("host"), cmp.Or(graphHost(u), p.Host))
	setDefault(&u.Username, written("username"), p.Username)
	setDefault(&u.Mechanisms, written("mechanisms"), slices.Clone(p.Mechanisms))
	setDefault(&u.MaxConnections, written("max_connections"), p.MaxConnections)
	setDefault(&u.MessagesPerConnection, written("messages_per_connection"), p.MessagesPerConnection)
	setDefault(&u.IdleClose, written("idle_close"), Duration(p.IdleClose))
	setDefault(&u.Rate, written("rate"), slices.Clone(p.Rate))
	sized := written("max_message_size") && (u.MaxMessageSize > 0 || !u.ByGraph()) // Graph names none itself
	setDefault(&u.MaxMessageSize, sized, largestMessage(u, Size(p.MaxMessageSize)))
	setDefault(&u.MaxRecipients, written("max_recipients"), p.MaxRecipients)
	setDefault(&u.AssumeExtensions, written("assume_extensions"), slices.Clone(p.AssumeExtensions))
	setDefault(&u.DenyExtensions, written("deny_extensions"), slices.Clone(p.DenyExtensions))
	setDefault(&u.DKIM, written("dkim"), p.DKIM)
	setDefault(&u.SenderRule, written("sender_rule"), p.SenderRule)
	setDefault(&u.NullSender, written("null_sender"), p.NullSender)
	setDefault(&u.MessageID, written("message_id"), p.MessageID)
}

// applyPort chooses port and TLS together: where one of them is written, the other is what goes with it.
func applyPort(c *Config, u *Upstream, p *profile.Profile, hasPort, hasTLS bool) {
	number, use := 0, ""
	if hasPort {
		number = u.Port
	}
	if hasTLS {
		use = u.TLS
	}
	port, ok := p.PortFor(number, use)
	if !ok {
		port = profile.Port{Number: map[string]int{Implicit: 465, NoTLS: 25}[use], TLS: p.Ports[0].TLS}
		port.Number = cmp.Or(port.Number, 587)
	}
	setDefault(&u.Port, hasPort, port.Number)
	setDefault(&u.TLS, hasTLS, port.TLS)
}

// provider checks what the profile is about.
func (v *validator) provider(key string, u *Upstream) {
	p, ok := profile.Get(u.Provider)
	if !ok {
		text := "write one of " + strings.Join(profile.Names(), ", ") + "; generic is any smart host"
		if near := suggest.Nearest(u.Provider, profile.Names()); near != "" {
			text = fmt.Sprintf("did you mean %q? \"postern upstream profiles\" lists all", near)
		}
		v.fail(key+".provider", "%q is not known, %s", u.Provider, text)
		p, _ = profile.Get(profile.Generic)
	}
	if u.Host == "" && ok {
		example := p.Example
		example = cmp.Or(example, "smtp.example.net")
		v.fail(key+".host", "is missing, write the provider's server, such as %q", example)
	}
	if u.ByGraph() {
		v.graph(key, u)
	} else if u.LargeMail != graph.RefuseLarge {
		v.fail(key+".large_mail", "is about microsoft-graph and means nothing to %s, remove it", u.Provider)
	}
	v.mechanisms(key, u)
	if err := smtp.CheckExtensions(u.AssumeExtensions, nil); err != nil {
		v.fail(key+".assume_extensions", "%s", err)
	}
	if err := smtp.CheckExtensions(nil, u.DenyExtensions); err != nil {
		v.fail(key+".deny_extensions", "%s", err)
	}
	v.oneOf(key+".sender_rule", u.SenderRule, profile.SenderAny, profile.SenderDomain, profile.SenderMustMatch,
		profile.SenderRewritten)
	v.oneOf(key+".null_sender", u.NullSender, profile.NullAccepted, profile.NullRefused, profile.NullUnknown)
	v.oneOf(key+".message_id", u.MessageID, profile.MessageIDKept, profile.MessageIDReplaced, profile.MessageIDUnknown)
	v.atLeast(key+".idle_close", u.IdleClose, minIdle)
	v.addHeaders(key, u)
	v.replyRules(key, u)
	v.senderRule(key, u)
	v.reports(u)
}

// minIdle keeps a pool from being none.
const minIdle = 1e9

func (v *validator) mechanisms(key string, u *Upstream) {
	known, _ := profile.Get(profile.Generic)
	if len(u.Mechanisms) == 0 {
		v.fail(key+".mechanisms", `is empty, remove it or write for example ["PLAIN"]`)
	}
	for i, m := range u.Mechanisms {
		at := element(key+".mechanisms", i)
		switch {
		case !slices.Contains(known.Mechanisms, m):
			v.fail(at, "unknown mechanism %q, write one of %s", m, quoteNames(known.Mechanisms))
		case slices.Index(u.Mechanisms, m) < i:
			v.fail(at, "%s stands twice, remove one", m)
		}
	}
	takesPassword := func(m string) bool { return !slices.Contains(smtp.OAuthMechanisms, m) }
	if u.Password.IsSet() && len(u.Mechanisms) > 0 && !slices.ContainsFunc(u.Mechanisms, takesPassword) {
		v.fail(key+".password", "%s takes access tokens only, write [upstream.oauth] instead", u.Provider)
	}
}

// replyRules checks one rule after the other, so that each problem names its own.
func (v *validator) replyRules(key string, u *Upstream) {
	for i := range u.Rules {
		at := element(key+".rule", i)
		if u.Rules[i].Name == "" {
			v.fail(at+".name", "is missing, write the word by which the trace names the rule")
		}
		if err := u.Rules[i].Check(); err != nil && !v.problems.within(at) {
			v.fail(at, "%s", err)
		}
	}
}

// senderRule warns of senders that the policy allows and the provider will not.
func (v *validator) senderRule(key string, u *Upstream) {
	if u.SendsAsSender() || !strings.Contains(u.Username, "@") {
		return
	}
	var effect string
	switch u.SenderRule {
	case profile.SenderMustMatch:
		effect = "refuses mail of others than %s, its aliases and those whom it may send as; %s is listed in " +
			"[[policy]], make sure that it may"
	case profile.SenderRewritten:
		effect = "rewrites senders to %s unless they are its confirmed aliases; %s is listed in [[policy]], confirm " +
			"it there"
	default:
		return
	}
	for i := range v.Policies {
		for _, sender := range v.Policies[i].Senders {
			if strings.Contains(sender, "@") && !strings.HasPrefix(sender, "@") &&
				!strings.EqualFold(sender, u.Username) {
				v.warn(key+".sender_rule", u.Provider+" "+effect, u.Username, sender)
				return
			}
		}
	}
}

// reports warns where a provider that binds senders to the account may refuse our reports.
func (v *validator) reports(u *Upstream) {
	address := strings.Contains(u.Username, "@")
	switch from := v.Delivery.BounceFrom; {
	case u.SenderRule != profile.SenderMustMatch:
	case from != "" && address && !strings.EqualFold(from, u.Username):
		v.warn("delivery.bounce_from", "%s refuses mail of others than %s, its aliases and those whom it may send "+
			"as; make sure that it may send as %s, or failure reports are lost",
			u.Provider, u.Username, from)
	case from == "" && !address && u.NullSender == profile.NullRefused:
		v.warn("delivery.bounce_from", "is not set, and upstream %s takes no mail without a sender: failure reports "+
			"leave in the name of whoever is told, write an address that the provider lets send",
			u.Name)
	}
}

func checkRate(text string) error {
	_, err := parseUpstreamRate(text)
	return err
}

func parseUpstreamRate(text string) (upstream.Rate, error) {
	l, err := policy.ParseLimit(text)
	if err != nil {
		return upstream.Rate{}, err
	}
	r := upstream.Rate{Count: l.Count, Per: l.Window}
	switch l.Unit {
	case policy.Messages:
		r.Unit = upstream.Messages
	case policy.Recipients:
		r.Unit = upstream.Recipients
	default:
		return r, fmt.Errorf(`%q counts neither messages nor recipients, write for example "30 messages/minute"`, text)
	}
	if err := r.Check(); err != nil {
		return r, fmt.Errorf("%q: %w", text, err)
	}
	return r, nil
}
