package config

import (
	"slices"
	"time"
)

// The widest ranges that still name somebody: the largest private ranges, 10.0.0.0/8 and fc00::/7.
const (
	minBits4 = 8
	minBits6 = 7
)

// A client ends its transfer before the server's verdict when that takes longer than it waits:
// ten minutes by RFC 5321 §4.5.3.2.6, but mail programs and scanners give up after one or two.
const (
	handoffLong = 30 * time.Second
	handoffMax  = 5 * time.Minute
)

func (v *validator) listeners() {
	if len(v.Listeners) == 0 {
		v.fail("listener", "is empty, remove it for the default listeners or write [[listener]]")
	}
	v.names("listener", v.listenerNames())
	for i := range v.Listeners {
		key, l := element("listener", i), &v.Listeners[i]
		v.listen(key, i)
		v.access(key, l)
		v.listenerBounds(key, l)
		v.listenerTimes(key, l)
		v.listenerMechanisms(key, l)
	}
}

// names refuses empty, odd and repeated names of blocks.
func (v *validator) names(list string, names []string) {
	for i, name := range names {
		key, first := element(list, i)+".name", slices.Index(names, name)
		switch {
		case name == "":
			v.fail(key, "is empty, write a name")
		case !isWord(name):
			v.fail(key, "%q is not a name, write letters, digits, dots and hyphens", name)
		case first < i:
			v.fail(key, "%q is the name of %s too, write another", name, element(list, first))
		}
	}
}

// isWord reports whether s is fit to be a name in logs, metrics and command lines.
func isWord(s string) bool {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return s != "" && s[0] != '-' && len(s) <= 64
}

func (v *validator) listen(key string, i int) {
	addr, err := parseListen(v.Listeners[i].Address)
	if err != nil {
		v.fail(key+".address", "%s", err)
		return
	}
	for j := range i {
		if other, err := parseListen(v.Listeners[j].Address); err == nil && addr.conflicts(other) {
			v.fail(key+".address", "%s is taken by listener[%d] (%s), write another port or address",
				v.Listeners[i].Address, j+1, v.Listeners[j].Address)
		}
	}
}

// access keeps out whoever has not proved who they are: promise 3, nobody sends as somebody else.
func (v *validator) access(key string, l *Listener) {
	tlsKnown := v.oneOf(key+".tls", l.TLS, StartTLS, Implicit, Auto, NoTLS)
	authKnown := v.oneOf(key+".auth", l.Auth, AuthRequired, AuthNetwork)
	if tlsKnown && l.TLS == NoTLS {
		v.limited(key, `tls = "none"`, "tls", l)
	}
	if authKnown && l.Auth == AuthNetwork {
		v.limited(key, `auth = "network"`, "auth", l)
		if l.Login == "" {
			v.fail(key+".login",
				`is empty while auth = "network", write the account that clients of these networks are`)
		}
	}
	if authKnown && l.Auth == AuthRequired && l.Login != "" {
		v.fail(key+".login", `has no effect while auth = "required", remove it or write auth = "network"`)
	}
	if l.TLS == NoTLS && l.Auth == AuthRequired && len(l.Networks) > 0 && !allLoopback(l.Networks) {
		v.warn(key+".tls", "passwords cross the network in clear, use this only for devices that know no TLS")
	}
	v.narrow(key+".proxy_protocol", l.ProxyProtocol, "whoever sends a PROXY header chooses its client address")
	v.profile(key, l)
}

// limited demands narrow networks where they are all that stands between the world and a relay.
func (v *validator) limited(key, setting, field string, l *Listener) {
	if len(l.Networks) == 0 {
		v.fail(key+"."+field,
			`%s would let everybody in, write networks = ["192.0.2.0/24"] with those that may connect`, setting)
		return
	}
	v.narrow(key+".networks", l.Networks, setting+" would let everybody in")
}

// narrow refuses ranges such as 0.0.0.0/0 and its halves.
func (v *validator) narrow(key string, ns Networks, why string) {
	for i, n := range ns {
		if !n.IsValid() {
			continue
		}
		least := minBits6
		if n.Addr().Is4() {
			least = minBits4
		}
		if n.Bits() < least {
			v.fail(element(key, i), "%s is too wide (%s), write ranges of /%d or narrower", n, why, least)
		}
	}
}

func allLoopback(ns Networks) bool {
	return !slices.ContainsFunc(ns, func(n Network) bool {
		least := 128
		if n.Addr().Is4() {
			least = 8
		}
		return !n.IsValid() || !n.Addr().IsLoopback() || n.Bits() < least
	})
}

func (v *validator) listenerBounds(key string, l *Listener) {
	// RFC 5321 §4.5.3.1.7: every server takes 64 KB.
	if l.MaxMessageSize < 64e3 || l.MaxMessageSize > 1<<30 {
		v.fail(key+".max_message_size", "%s is out of range, write a size from 64KB to 1GiB", l.MaxMessageSize)
	}
	v.oneOf(key+".long_lines", l.LongLines, EncodeLines, RefuseLines)
	v.between(key+".max_recipients", l.MaxRecipients, 1, 10_000)
	v.between(key+".max_connections", l.MaxConnections, 1, 100_000)
	v.between(key+".max_unauthenticated", l.MaxUnauthenticated, 1, 10_000)
	v.between(key+".max_connections_per_ip", l.MaxConnectionsPerIP, 1, 100_000)
	// RFC 5321 §4.5.3.1.8: a server should take 100 recipients.
	if l.MaxRecipients > 0 && l.MaxRecipients < 100 {
		v.warn(key+".max_recipients", "%d is below the 100 that clients may count on by RFC 5321 §4.5.3.1.8",
			l.MaxRecipients)
	}
	if l.MaxConnections > 0 && l.MaxConnectionsPerIP > l.MaxConnections && v.doc.has(key+".max_connections_per_ip") {
		v.fail(key+".max_connections_per_ip", "%d is more than max_connections %d, write a smaller one",
			l.MaxConnectionsPerIP, l.MaxConnections)
	}
}

func (v *validator) listenerTimes(key string, l *Listener) {
	v.atMost(key+".handoff", l.Handoff, handoffMax, "no client waits that long for a verdict")
	if d := l.Handoff.Std(); d > handoffLong && d <= handoffMax {
		v.warn(key+".handoff", "%s is longer than many clients wait for a verdict; they would send again, write at "+
			"most %s", l.Handoff, Duration(handoffLong))
	}
	for _, t := range []struct {
		name  string
		value Duration
	}{{"idle_timeout", l.IdleTimeout}, {"auth_timeout", l.AuthTimeout}, {"data_timeout", l.DataTimeout}} {
		v.atLeast(key+"."+t.name, t.value, time.Second)
		v.atMost(key+"."+t.name, t.value, time.Hour, "silent clients would fill the listener")
	}
	v.atLeast(key+".max_session", l.MaxSession, time.Minute)
	v.atMost(key+".max_session", l.MaxSession, 30*24*time.Hour, "a client that logged in once would stay for good")
}
