package dnscheck

import (
	"cmp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// dkimVerdict is what DKIM says of a sender's mail.
type dkimVerdict uint8

const (
	dkimUnknown dkimVerdict = iota
	dkimPass
	dkimFail
)

// of judges the signatures that mail of the domain has behind a sender: ours, and the provider's.
func (c *dkimCheck) of(s Sender) (dkimVerdict, string) {
	ours, why := dkimFail, "nobody signs it with DKIM for "+c.o.Domain
	if s.Ours {
		ours, why = c.ourSignature()
	}
	if ours == dkimPass {
		return ours, why
	}
	theirs, their := c.theirSignature(s)
	if s.Ours && theirs != dkimPass && len(c.signingKeys()) == 0 {
		c.noneSigns()
	}
	switch {
	case theirs == dkimPass, theirs == dkimUnknown && ours == dkimFail:
		return theirs, their
	case theirs == dkimFail && their != "" && !s.Ours:
		return theirs, their
	}
	return ours, why
}

func (c *dkimCheck) noneSigns() {
	if c.waits() {
		c.tell.note("dkim-waiting", "The DKIM keys for %s wait until the world sees their records.", c.o.Domain)
		return
	}
	c.tell.note("dkim-none", "Postern has no DKIM key for %s.", c.o.Domain)
}

// waits reports that keys of ours are to sign once their records are seen.
func (c *dkimCheck) waits() bool {
	return slices.ContainsFunc(c.keys, func(k keyState) bool { return k.Waits })
}

// ourSignature judges the keys that sign mail of the domain.
func (c *dkimCheck) ourSignature() (dkimVerdict, string) {
	keys := c.signingKeys()
	switch {
	case len(keys) == 0 && c.waits():
		return dkimFail, "the DKIM keys for " + c.o.Domain + " wait for their records"
	case len(keys) == 0:
		return dkimFail, "Postern has no DKIM key for " + c.o.Domain
	}
	verdict, why := dkimFail, ""
	for _, k := range keys {
		switch {
		case k.ok && c.dmarc.aligned(k.Domain, c.dmarc.record.strictDKIM):
			return dkimPass, "Postern signs it with " + k.RecordName()
		case k.ok:
			why = "the signature is of " + k.Domain + ", and the DMARC record wants one of " + c.o.Domain
			c.tell.note("dmarc-strict-dkim", "Mail of %s is signed as %s, and its DMARC record accepts only %s itself.",
				c.o.Domain, k.Domain, c.o.Domain)
		case k.unknown:
			verdict = dkimUnknown
		}
		why = cmp.Or(why, k.why)
	}
	if verdict == dkimUnknown {
		return verdict, "the DKIM records could not be looked up"
	}
	return verdict, lowerFirst(why)
}

// lowerFirst joins a sentence to another.
func lowerFirst(s string) string {
	if rest, ok := strings.CutPrefix(s, "The "); ok {
		return "the " + rest
	}
	if rest, ok := strings.CutPrefix(s, "There "); ok {
		return "there " + rest
	}
	return s
}

// theirSignature judges the provider's own signature. Records whose names only the provider knows cannot be seen.
func (c *dkimCheck) theirSignature(s Sender) (dkimVerdict, string) {
	switch s.Signs {
	case SignsDomain:
	case SignsProvider:
		return dkimFail, s.Provider + " signs it as itself, not as " + c.o.Domain
	case SignsNot:
		return dkimFail, ""
	default:
		return dkimUnknown, "it is not known whether " + s.Provider + " signs it for " + c.o.Domain
	}
	if len(s.Selectors) == 0 {
		return dkimUnknown, s.Provider + " signs it for domains that are set up there, by records whose names it " +
			"shows to you alone"
	}
	return c.selectors(s)
}

// selectors judges the records of a provider whose names are known. One that works is enough.
func (c *dkimCheck) selectors(s Sender) (dkimVerdict, string) {
	var missing []string
	good, unknown := 0, false
	for _, sel := range s.Selectors {
		got := c.selector(s, sel)
		switch {
		case got == dkimPass:
			good++
		case got == dkimUnknown:
			unknown = true
		case !sel.Usual:
			missing = append(missing, sel.Name)
		}
	}
	code := ""
	switch {
	case good > 0 && len(missing) > 0:
		code = "dkim-provider-partly"
	case good > 0:
	case unknown:
		return dkimUnknown, "the DKIM records of " + s.Provider + " could not be looked up"
	case len(missing) == 0:
		return dkimUnknown, s.Provider + " signs it for domains that are set up there, but no DKIM record of it " +
			"stands " +
			"under its usual name"
	default:
		code = "dkim-provider-missing"
	}
	if code != "" && !s.Ours {
		c.tell.note(code, "Of the DKIM records of %s for %s, these are missing or broken: %s.", s.Provider, c.o.Domain,
			joined(missing))
	}
	if good > 0 {
		return dkimPass, s.Provider + " signs it for " + c.o.Domain
	}
	return dkimFail, "the DKIM records of " + s.Provider + " are not published"
}

// selector looks at one DKIM record of a provider, and says what to publish where it is missing.
func (c *dkimCheck) selector(s Sender, sel Selector) dkimVerdict {
	name := sel.Name + "._domainkey." + c.o.Domain
	a, err := c.see.look(name, dns.TypeTXT)
	missing := func() dkimVerdict {
		if sel.Usual {
			return dkimFail
		}
		if sel.Target != "" && !s.Ours {
			c.tell.publish(Record{Name: name, Type: "CNAME", Value: sel.Target, Code: "dkim-provider-missing"})
		}
		return dkimFail
	}
	switch k := kindOf(err); {
	case k == Dangling:
		if !s.Ours {
			c.tell.note("dkim-cname-dangling", "The DKIM record %s is a CNAME to %s, which does not exist.", name,
				joined(a.Chain))
		}
		return missing()
	case k == NXDomain:
		return missing()
	case k != "":
		c.see.failed(name, err)
		return dkimUnknown
	}
	texts := a.Texts()
	if len(texts) == 0 {
		return missing()
	}
	if len(texts) > 1 {
		if !s.Ours {
			c.tell.note("dkim-several", "There are %d TXT records at %s; there may be one.", len(texts), name)
		}
		return dkimFail
	}
	r, err := parseKey(texts[0])
	if err != nil || r.revoked || r.noHash || r.notMail || r.stripped || r.bits > 0 && r.bits < 1024 {
		if !s.Ours {
			c.tell.note("dkim-provider-broken", "The DKIM record %s, by which %s signs, is not usable: %q.", name,
				s.Provider, clean(texts[0]))
		}
		return dkimFail
	}
	return dkimPass
}
