package dnscheck

import (
	"strings"

	"github.com/miekg/dns"

	"postern/mail"
)

// dmarcCheck finds the DMARC record that applies to the domain, and judges it.
type dmarcCheck struct {
	o    *Options
	see  *sight
	tell *notes

	record dmarcRecord // that applies; empty without
	at     string      // the domain that has it
	org    string      // the organizational domain
	known  bool        // it could be found out
}

// walkStep is a valid record that a tree walk met.
type walkStep struct {
	domain string
	record dmarcRecord
}

// longWalk is the number of questions of a tree walk (RFC 9989 §4.10).
const longWalk = 8

// treeWalk asks for the DMARC records of a domain and of what stands above it. A domain with several records has none.
func (c *dmarcCheck) treeWalk(domain string) (found []walkStep, err error) {
	at := domain
	for range longWalk {
		a, err := c.lookUp(at)
		if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
			return found, err
		}
		if r, ok := onlyDMARC(a.Texts()); ok {
			found = append(found, walkStep{at, r})
			if r.psd != "u" {
				return found, nil
			}
		}
		at = above(at)
		if at == "" {
			break
		}
	}
	return found, nil
}

// above is the next domain of a walk: without the first label, and of eight labels or more the last seven.
func above(domain string) string {
	labels := strings.Split(domain, ".")
	return strings.Join(labels[max(1, len(labels)-longWalk+1):], ".")
}

func (c *dmarcCheck) lookUp(domain string) (Answer, error) {
	if domain == c.o.Domain {
		return c.see.look("_dmarc."+domain, dns.TypeTXT)
	}
	return c.see.s.resolve(c.see.ctx, "_dmarc."+domain, dns.TypeTXT)
}

// onlyDMARC returns the record of a domain, if there is exactly one that can be read.
func onlyDMARC(texts []string) (dmarcRecord, bool) {
	var found []string
	for _, text := range texts {
		if isDMARC(text) {
			found = append(found, text)
		}
	}
	if len(found) != 1 {
		return dmarcRecord{}, false
	}
	r, err := parseDMARC(found[0])
	return r, err == nil
}

// organization picks the organizational domain from a walk (RFC 9989 §4.10.2).
func organization(domain string, found []walkStep) string {
	for _, step := range found {
		switch {
		case step.record.psd == "n":
			return step.domain
		case step.record.psd == "y" && step.domain != domain:
			below := strings.TrimSuffix(domain, "."+step.domain)
			return below[strings.LastIndexByte(below, '.')+1:] + "." + step.domain
		}
	}
	if len(found) > 0 {
		return found[len(found)-1].domain // the fewest labels
	}
	return domain
}

// aligned reports whether an authenticated domain speaks for the checked one.
func (c *dmarcCheck) aligned(domain string, strict bool) bool {
	if domain == c.o.Domain {
		return true
	}
	if strict {
		return false
	}
	found, err := c.treeWalk(domain)
	return err == nil && c.org == organization(domain, found)
}

// check finds the record that applies and judges it.
func (c *dmarcCheck) check() {
	a, err := c.see.look("_dmarc."+c.o.Domain, dns.TypeTXT)
	if k := kindOf(err); k != "" && k != NXDomain {
		c.see.failed("_dmarc."+c.o.Domain, err)
		if k != Dangling {
			return
		}
	}
	found, err := c.treeWalk(c.o.Domain)
	if err != nil {
		c.see.failed("_dmarc."+c.o.Domain, err)
		return
	}
	c.known = true
	c.org = organization(c.o.Domain, found)
	c.choosePolicy(found)
	if c.judgeTexts(a.Texts()) && c.at == "" {
		c.tell.note("dmarc-none", "%s has no DMARC record.", c.o.Domain)
	}
	c.judgeMisplaced()
	if c.at != "" {
		c.judgePolicy()
		c.judgeReports()
	}
}

// choosePolicy takes the record of the domain, else of the organization, else of the public suffix above it.
func (c *dmarcCheck) choosePolicy(found []walkStep) {
	for _, want := range []string{c.o.Domain, c.org} {
		for _, step := range found {
			if step.domain == want {
				c.at, c.record = step.domain, step.record
				return
			}
		}
	}
	if len(found) > 0 && found[len(found)-1].record.psd == "y" {
		last := found[len(found)-1]
		c.at, c.record = last.domain, last.record
	}
}

// judgeTexts judges what stands at the domain itself, and reports whether nothing does.
func (c *dmarcCheck) judgeTexts(texts []string) (nothing bool) {
	valid := 0
	nothing = true
	for _, text := range texts {
		switch {
		case isDMARC(text):
			valid++
			nothing = false
			if r, err := parseDMARC(text); err != nil {
				c.tell.note("dmarc-syntax", "The DMARC record of %s has a mistake: %s.", c.o.Domain, clean(err.Error()))
			} else if r.noPolicy {
				c.tell.note("dmarc-no-policy", "The DMARC record of %s has no p=.", c.o.Domain)
			}
		case looksLikeDMARC(text):
			nothing = false
			c.tell.note("dmarc-unreadable", "A record at _dmarc.%s looks like DMARC, but receivers do not see it: %q.",
				c.o.Domain, clean(text))
		}
	}
	if valid > 1 {
		c.tell.note("dmarc-several", "%s has %d DMARC records; with more than one, none counts.", c.o.Domain, valid)
	}
	return nothing
}

// judgeMisplaced finds a record that was put at the domain instead of _dmarc.
func (c *dmarcCheck) judgeMisplaced() {
	texts, _ := c.see.texts(c.o.Domain)
	for _, text := range texts {
		if isDMARC(text) {
			c.tell.note("dmarc-misplaced", "A DMARC record stands at %s itself instead of at _dmarc.%s.", c.o.Domain,
				c.o.Domain)
		}
	}
}

func (c *dmarcCheck) judgePolicy() {
	r, own := c.record, c.at == c.o.Domain
	policy := r.policy
	if !own {
		policy = r.subdomains
	}
	switch {
	case policy == "none":
		c.tell.note("dmarc-monitor", "The DMARC record of %s only watches: its policy for %s is none.", c.at,
			c.o.Domain)
	case r.testing:
		c.tell.note("dmarc-testing", "The DMARC record of %s says t=y, so that its policy %s is not applied in full.",
			c.at, policy)
	case own && (r.subdomains == "none" || r.missing == "none"):
		c.tell.note("dmarc-subdomains", "The DMARC record of %s protects the domain (p=%s), but not its subdomains "+
			"(sp=%s, "+
			"np=%s).", c.o.Domain, r.policy, r.subdomains, r.missing)
	}
	if own && r.psd == "y" {
		c.tell.note("dmarc-psd", "The DMARC record of %s says psd=y, which only registries of domains may.", c.o.Domain)
	}
	if len(r.old) > 0 {
		c.tell.note("dmarc-old-tags", "The DMARC record of %s has tags that DMARC no longer knows: %s.", c.at,
			strings.Join(r.old, ", "))
	}
}

// judgeReports looks whether reports are asked for, and whether they may be sent there (RFC 9990 §4).
func (c *dmarcCheck) judgeReports() {
	if len(c.record.reports) == 0 {
		c.tell.note("dmarc-no-reports", "The DMARC record of %s does not ask for reports.", c.at)
		return
	}
	for i, uri := range c.record.reports {
		if i == maxReports {
			break
		}
		address, isMail := strings.CutPrefix(strings.ToLower(uri), "mailto:")
		address, _, _ = strings.Cut(address, "!") // RFC 7489 §6.2: a size
		to, err := mail.ParseAddress(address)
		if !isMail || err != nil || to.IsNull() {
			c.tell.note("dmarc-report-address", "The DMARC record of %s wants reports at %q, which is not mailto: "+
				"and an "+
				"address.", c.at, clean(uri))
			continue
		}
		c.judgeReporter(mail.ALabels(to.Domain))
	}
}

// maxReports of a record are looked at.
const maxReports = 5

// judgeReporter asks whether another organization agreed to get the reports.
func (c *dmarcCheck) judgeReporter(host string) {
	if found, err := c.treeWalk(host); err != nil || organization(host, found) == c.org {
		return
	}
	name := c.at + "._report._dmarc." + host
	if len(name) > 253 {
		return
	}
	a, err := c.see.s.resolve(c.see.ctx, name, dns.TypeTXT)
	if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
		return
	}
	for _, text := range a.Texts() {
		if isDMARC(text) {
			return
		}
	}
	c.tell.note("dmarc-report-denied", "Reports about %s should go to %s, which has not agreed to get them.", c.at,
		clean(host))
	c.tell.publish(Record{Name: name, Type: "TXT", Value: "v=DMARC1", Code: "dmarc-report-denied",
		Note: "to be published by " + clean(host)})
}
