package config

import (
	"slices"
	"strconv"
	"strings"

	"postern/internal/suggest"
	"postern/internal/textfile"
	"postern/mail"
	"postern/policy"
)

func (v *validator) policies() {
	for i := range v.Policies {
		key, p := element("policy", i), &v.Policies[i]
		v.matchers(key, p.Logins, p.Groups, p.Listeners)
		v.entries(key+".senders", p.Senders, policy.CheckSenderPattern)
		v.entries(key+".recipients", p.Recipients, policy.CheckRecipientPattern)
		v.entries(key+".limits", p.Limits, checkLimit)
		if p.UnlistedSender != "" || v.doc.has(key+".unlisted_sender") {
			v.oneOf(key+".unlisted_sender", p.UnlistedSender, "refuse", "rewrite")
		}
		if p.OverLimit != "" || v.doc.has(key+".over_limit") {
			v.oneOf(key+".over_limit", p.OverLimit, "defer", "refuse", "hold", "lock")
		}
		if v.doc.has(key + ".max_held") {
			v.between(key+".max_held", p.MaxHeld, 1, maxHeld)
		}
		if p.setsNothing() && !v.problems.within(key) {
			v.fail(key, "sets nothing, write senders, unlisted_sender, recipients, limits, over_limit or max_held, "+
				"or remove it")
		}
		v.compiled(key, policy.Check(p.rule(key)))
	}
}

func checkLimit(s string) error {
	_, err := policy.ParseLimit(s)
	return err
}

func (p *Policy) setsNothing() bool {
	return p.Senders == nil && p.Recipients == nil && p.Limits == nil && p.UnlistedSender == "" && p.OverLimit == "" &&
		p.MaxHeld == 0
}

// maxHeld bounds max_held: what is held is counted by going through it.
const maxHeld = 100_000

// matchers checks the conditions that policies and routes share.
func (v *validator) matchers(key string, logins, groups, listeners []string) {
	v.filled(key+".logins", logins, "a login, with * for any text")
	v.filled(key+".groups", groups, "the name of a group")
	v.filled(key+".listeners", listeners, "the name of a listener")
	for i, name := range listeners {
		known := slices.ContainsFunc(v.Listeners, func(l Listener) bool { return l.Name == name })
		if !known && name != "" {
			v.fail(element(key+".listeners", i), "there is no [[listener]] named %q, write one of %s%s", name,
				quoteNames(v.listenerNames()),
				suggest.Question(name, v.listenerNames()))
		}
	}
}

func (v *validator) filled(key string, values []string, what string) {
	for i, s := range values {
		if strings.TrimSpace(s) == "" {
			v.fail(element(key, i), "is empty, write %s", what)
		}
	}
}

func (v *validator) listenerNames() []string {
	names := make([]string, len(v.Listeners))
	for i, l := range v.Listeners {
		names[i] = l.Name
	}
	return names
}

func quoteNames(names []string) string {
	if len(names) == 0 {
		return "none: there are no names"
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	return strings.Join(quoted, ", ")
}

func (v *validator) dkim() {
	seen := make(map[string]int)
	for i, k := range v.DKIM {
		key := element("dkim", i)
		domain, err := mail.ParseDomain(k.Domain)
		if err != nil || strings.HasPrefix(domain, "[") || !isASCII(domain) {
			v.fail(key+".domain", "%q is not a domain, write the domain of the senders, such as example.com", k.Domain)
		}
		// RFC 6376 §3.1: a selector is a sequence of domain labels.
		if s, err := mail.ParseDomain(k.Selector); err != nil || strings.HasPrefix(s, "[") || !isASCII(s) {
			v.fail(key+".selector", "%q is not a selector, write the name before ._domainkey in DNS, such as r202611",
				k.Selector)
		}
		id := strings.ToLower(k.Selector) + "._domainkey." + domain
		if first, ok := seen[id]; ok {
			v.fail(key+".selector", "%s is the name of dkim[%d] too, write another selector", id, first+1)
		} else {
			seen[id] = i
		}
		v.dkimKey(key+".key_file", k.KeyFile)
	}
}

// dkimKey checks that the file is there and private; package sign checks the key in it.
func (v *validator) dkimKey(key, path string) {
	if path == "" {
		v.fail(key, "is missing, write the path of the private key in PEM form")
		return
	}
	if err := checkPrivate(path); err != nil {
		v.fail(key, "%s", err)
		return
	}
	data, err := textfile.Bounded(path, maxSecret)
	switch {
	case err != nil:
		v.fail(key, "%s", err)
	case !strings.Contains(string(data), "PRIVATE KEY-----"):
		v.fail(key, "%s has no private key in PEM form, write the path of one with -----BEGIN PRIVATE KEY-----", path)
	}
}
