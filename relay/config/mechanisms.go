package config

import (
	"slices"

	"postern/auth"
)

// howMechanisms is what a list of mechanisms may have.
const howMechanisms = `"PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "EXTERNAL" ` +
	`or, for devices alone, "CRAM-MD5"`

// saslMechanisms checks a list of SASL mechanisms.
func (v *validator) saslMechanisms(key string, list []string) {
	if len(list) == 0 {
		v.fail(key, `is empty, write ["PLAIN", "LOGIN"]`)
	}
	for i, m := range list {
		at := element(key, i)
		switch {
		case !slices.Contains(auth.Mechanisms, m):
			v.fail(at, `unknown mechanism %q, write %s`, m, howMechanisms)
		case slices.Index(list, m) < i:
			v.fail(at, "%s stands twice, remove one", m)
		}
	}
}

// deriveMechanisms gives listeners those of [auth].
func deriveMechanisms(c *Config) {
	for i := range c.Listeners {
		if !c.doc.has(element("listener", i) + ".mechanisms") {
			c.Listeners[i].Mechanisms = slices.Clone(c.Auth.Mechanisms)
		}
	}
}

// listenerMechanisms checks what a listener offers.
func (v *validator) listenerMechanisms(key string, l *Listener) {
	own := v.doc.has(key + ".mechanisms")
	if own {
		v.saslMechanisms(key+".mechanisms", l.Mechanisms)
	}
	if l.Auth != AuthRequired {
		if own {
			v.fail(key+".mechanisms", `has no effect while auth = %q, remove it`, l.Auth)
		}
		v.clientCA(key, l)
		return
	}
	for i, m := range l.Mechanisms {
		if why := notOffered(v.Config, m, l); why != "" && own && !v.problems.within(element(key+".mechanisms", i)) {
			v.warn(element(key+".mechanisms", i), "is not offered: %s", why)
		}
	}
	v.clientCA(key, l)
}

// nothingOffered refuses listeners that nobody could log in at.
func (v *validator) nothingOffered() {
	for i := range v.Listeners {
		l, key := &v.Listeners[i], "auth.mechanisms"
		if own := element("listener", i) + ".mechanisms"; v.doc.has(own) {
			key = own
		}
		if l.Auth != AuthRequired || len(l.Mechanisms) == 0 || len(v.Offered(l)) > 0 ||
			v.problems.within("auth.source") || v.problems.within(key) {
			continue
		}
		v.fail(key, "leaves listener %s with nothing to offer: %s", l.Name, notOffered(v.Config, l.Mechanisms[0], l))
	}
}

func (v *validator) clientCA(key string, l *Listener) {
	switch {
	case l.ClientCAFile == "":
		return
	case l.Auth != AuthRequired || !slices.Contains(l.Mechanisms, auth.External):
		v.fail(key+".client_ca_file",
			`has no effect without EXTERNAL, write mechanisms = ["EXTERNAL", "PLAIN", "LOGIN"]`)
		return
	}
	if _, err := readCertificates(l.ClientCAFile); err != nil {
		v.fail(key+".client_ca_file", "%s", err)
	}
}

// Offered returns the mechanisms that a listener offers, in order: those of its list that it and one source can do.
// With SCRAM-SHA-256 goes SCRAM-SHA-256-PLUS, which needs nothing more of anybody.
func (c *Config) Offered(l *Listener) (offered []string) {
	if l.Auth != AuthRequired {
		return nil
	}
	for _, m := range l.Mechanisms {
		if notOffered(c, m, l) != "" {
			continue
		}
		if m == auth.ScramSHA256 && l.TLS != NoTLS && !slices.Contains(l.Mechanisms, auth.ScramPlus) {
			offered = append(offered, auth.ScramPlus)
		}
		offered = append(offered, m)
	}
	return offered
}

// notOffered says why a listener does not offer a mechanism; "": it does.
func notOffered(c *Config, m string, l *Listener) string {
	passwords := func(s AuthSource) bool { return s.Type != SourceOIDC }
	has := func(can func(AuthSource) bool) bool { return slices.ContainsFunc(c.Auth.Sources, can) }
	switch m {
	case auth.Plain, auth.Login:
		if !has(passwords) {
			return `no [[auth.source]] knows passwords; write "OAUTHBEARER" and "XOAUTH2"`
		}
	case auth.ScramSHA256, auth.ScramPlus:
		if !localSource(c, SourceStore, SourceFile) {
			return `SCRAM needs keys, which only sources of type "store" and "file" have; put one before those that ` +
				`are remote`
		}
		if m == auth.ScramPlus && l.TLS == NoTLS {
			return `it binds to TLS, which the listener does not have; write "SCRAM-SHA-256"`
		}
	case auth.OAuthBearer, auth.XOAuth2:
		if !has(func(s AuthSource) bool { return s.Type == SourceOIDC }) {
			return `no [[auth.source]] of type "oidc" is there to verify tokens`
		}
		if l.TLS == NoTLS {
			return "tokens would cross the network in clear"
		}
	case auth.External:
		if l.TLS == NoTLS {
			return "there are no certificates without TLS"
		}
		if !has(passwords) {
			return `no [[auth.source]] has accounts; add one of type "store"`
		}
	case auth.CramMD5:
		if !localSource(c, SourceStore) {
			return `CRAM-MD5 is for devices of the store; put a source of type "store" before those that are remote`
		}
	}
	return ""
}

// localSource reports whether there is a source of one of these types, which have keys, before those that are remote.
func localSource(c *Config, types ...string) bool {
	for _, s := range c.Auth.Sources {
		switch s.Type {
		case SourceStore, SourceFile, SourceOIDC:
			if slices.Contains(types, s.Type) {
				return true
			}
		default:
			return false
		}
	}
	return false
}

// OfferedAt names the listeners that offer a mechanism. Setting a password makes the keys of those that are offered.
func (c *Config) OfferedAt(mechanism string) (names []string) {
	for i := range c.Listeners {
		if slices.Contains(c.Offered(&c.Listeners[i]), mechanism) {
			names = append(names, c.Listeners[i].Name)
		}
	}
	return names
}
