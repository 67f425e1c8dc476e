package dnscheck

import (
	"fmt"
	"slices"

	"postern/relay/finding"
)

// Verdict is what becomes of a domain's mail at receivers, by one upstream.
type Verdict string

// The verdicts.
const (
	ByDKIM  Verdict = "passes by DKIM"     // also where it is forwarded
	BySPF   Verdict = "passes only by SPF" // and fails where it is forwarded
	Fails   Verdict = "fails"
	Unknown Verdict = "unknown"
)

// Outcome is the verdict for one upstream, with a sentence why.
type Outcome struct {
	Upstream string  `json:"upstream"`
	Provider string  `json:"provider"`
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why"`
}

// decide gives each sender its outcome, and says what to publish.
func (c *check) decide() {
	for _, s := range c.o.Senders {
		if slices.Contains(s.OwnDomains, c.o.Domain) {
			c.conclude(s, ByDKIM, s.Provider+" owns the domain and signs its mail.")
			continue
		}
		if len(c.tell.findings) > 0 && !c.spf.known && !c.dmarc.known {
			if v := undecided(c); v == Fails { // the finding about the domain says it already
				c.outcomes = append(c.outcomes, Outcome{s.Name, s.Provider, v, lastOf(c.tell.findings)})
			} else {
				c.conclude(s, v, lastOf(c.tell.findings))
			}
			continue
		}
		c.decideFor(s)
	}
	c.publishSPF()
	c.publishDMARC()
	c.healthy()
}

// undecided is the verdict where nothing of the domain could be read: one that does not exist fails.
func undecided(c *check) Verdict {
	for _, f := range c.tell.findings {
		if f.Code == "dns-nxdomain" || f.Code == "dns-lame-all" {
			return Fails
		}
	}
	return Unknown
}

func lastOf(list []finding.Finding) string { return list[len(list)-1].What }

func (c *check) decideFor(s Sender) {
	dkim, byDKIM := c.dkim.of(s)
	spf, bySPF := c.spf.of(s)
	if dkim == dkimPass {
		c.conclude(s, ByDKIM, sentence(byDKIM))
		return
	}
	switch {
	case spf == spfPass:
		c.conclude(s, BySPF, sentence(bySPF+"; by DKIM it does not pass, because "+byDKIM))
	case dkim == dkimUnknown || spf == spfUnknown:
		c.conclude(s, Unknown, sentence(byDKIM+"; "+bySPF))
	default:
		c.conclude(s, Fails, sentence(byDKIM+"; "+bySPF))
	}
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return string(upper(s[0])) + s[1:] + "."
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

func (c *check) conclude(s Sender, v Verdict, why string) {
	c.outcomes = append(c.outcomes, Outcome{s.Name, s.Provider, v, why})
	code := map[Verdict]string{ByDKIM: "outcome-dkim", BySPF: "outcome-spf", Fails: "outcome-fails",
		Unknown: "outcome-unknown"}[v]
	what := fmt.Sprintf("Mail of %s through %s %s.", c.o.Domain, s.Name, v)
	if v == Fails { // not at the provider
		what = fmt.Sprintf("Receivers do not take mail of %s through %s for genuine.", c.o.Domain, s.Name)
	}
	switch {
	case v == Unknown:
		what = fmt.Sprintf("Whether mail of %s through %s passes cannot be told.", c.o.Domain, s.Name)
	case v == Fails && c.dmarc.record.enforced(c.dmarc.at == c.o.Domain):
		code = "outcome-refused"
	}
	c.tell.note(code, "%s %s", what, why)
}

// enforced reports whether receivers are asked to refuse mail that fails or take it for spam.
func (r dmarcRecord) enforced(own bool) bool {
	policy := r.policy
	if !own {
		policy = r.subdomains
	}
	return policy == "reject" || policy == "quarantine"
}

// healthy says what was looked at and is in order.
func (c *check) healthy() {
	parts := []struct {
		code, prefix, what string
		looked             bool
	}{
		{"spf-ok", "spf-", "The SPF record of %s is in order.", c.spf.usable},
		{"dmarc-ok", "dmarc-", "The DMARC record that applies to %s is in order.", c.dmarc.at != ""},
		{"dkim-ok", "dkim-", "The DKIM records of %s are in order.", slices.ContainsFunc(c.outcomes,
			func(o Outcome) bool { return o.Verdict == ByDKIM })},
		{"mx-ok", "mx-", "Replies to %s find their mail server.", c.hosts.replies},
	}
	for _, p := range parts {
		if p.looked && !c.tell.toldOf(p.prefix) {
			c.tell.note(p.code, p.what, c.o.Domain)
		}
	}
}
