package smtp

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream/internal/whytls"
)

// silenceTried is how long a test lets a server be silent before it looks whether TLS is spoken there.
const silenceTried = 2 * time.Second

// limited is the same upstream without what it has learned, and with no wait longer than a limit.
func (u *Upstream) limited(limit time.Duration) *Upstream {
	cfg := u.cfg
	for _, d := range []*time.Duration{&cfg.Timeouts.Resolve, &cfg.Timeouts.Connect, &cfg.Timeouts.TLS,
		&cfg.Timeouts.Greeting, &cfg.Timeouts.Command, &cfg.Timeouts.Mail} {
		*d = min(*d, limit)
	}
	cfg.Timeouts.Silence = min(cfg.Timeouts.Silence, silenceTried)
	return &Upstream{cfg: cfg, tls: u.tls, rules: u.rules, log: u.log, conns: make(map[*conn]struct{})}
}

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.Unmap().String()
	}
	return strings.Join(s, ", ")
}

// describeTLS says what was agreed and whose certificate was shown.
func describeTLS(s *tls.ConnectionState) string {
	text := tls.VersionName(s.Version) + ", " + tls.CipherSuiteName(s.CipherSuite)
	if s.DidResume {
		text += ", resumed"
	}
	if len(s.PeerCertificates) == 0 {
		return text
	}
	cert := s.PeerCertificates[0]
	return text + ", certificate for " + strings.Join(names(cert), ", ") + " by " + issuer(cert) +
		", valid until " + cert.NotAfter.UTC().Format(time.DateOnly)
}

// names are those that a certificate is for; of one without any its common name.
func names(cert *x509.Certificate) []string {
	if all := whytls.Names(cert); len(all) > 0 {
		return all
	}
	return []string{"no name (subject " + mail.Printable(mail.Cut(cert.Subject.CommonName, 200)) + ")"}
}

func issuer(cert *x509.Certificate) string {
	if n := cert.Issuer.Organization; len(n) > 0 {
		return mail.Printable(n[0])
	}
	return mail.Printable(cert.Issuer.CommonName)
}

// explain tells whoever runs the identity what a failure before MAIL means and what to look at.
func (u *Upstream) explain(f *fault, identity string) string {
	switch {
	case f.stage == mail.StageResolve:
		return f.reply.Text + ": check host in the configuration, and the name servers of this machine."
	case f.stage == mail.StageConnect && isProxyFault(f.err):
		return f.reply.Text
	case f.stage == mail.StageConnect:
		return f.reply.Text + ": check host and port, and whether a firewall lets this machine out to port " +
			u.port() + "."
	case f.stage == mail.StageAuth && u.cfg.Token != nil:
		return u.explainToken(f, identity)
	case f.stage == mail.StageAuth && f.reply.Code == 535:
		return "The upstream refuses the user name or password of " + quote(identity) +
			". It may also want an app password, or have password logins switched off for this account."
	case f.stage == mail.StageAuth && f.reply.Code == 534:
		return "The upstream wants another kind of login for " + quote(identity) + ", often an app password."
	case f.stage == mail.StageAuth && f.class == mail.BackPressure:
		return "The upstream cannot check logins now, or has seen too many. This passes without a change here."
	case f.fixed:
		return f.reply.Text + "."
	case f.stage == mail.StageTLS && f.class == mail.AccountFault:
		return f.reply.Text + ". Check host, port and tls; if the upstream uses an authority of its own, name its " +
			"certificate in ca_file."
	case f.stage == mail.StageGreeting && f.reply.Permanent():
		return "The upstream does not serve this machine at all; its address may be blocked there."
	case f.stage == mail.StageMail && f.rule != nil && f.reply.Permanent():
		return "The upstream does not take mail of this sender."
	case f.stage == mail.StageMail && f.rule != nil && f.reply.Temporary():
		return "The upstream takes no mail of this sender now."
	}
	return f.reply.Text
}

func (u *Upstream) port() string { return strconv.Itoa(u.cfg.Port) }

func quote(s string) string { return strconv.Quote(mail.Printable(s)) }
