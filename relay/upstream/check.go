package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// Step is one phase of a Test.
type Step struct {
	Name  string        `json:"name"` // resolve, connect, tls, greeting, ehlo, starttls, auth
	OK    bool          `json:"ok"`
	Took  time.Duration `json:"took_ns"`
	Seen  string        `json:"seen,omitempty"`  // what was found, for people; lines separated by \n
	Cause string        `json:"cause,omitempty"` // why it failed and what to look at, in plain words
	Reply mail.Reply    `json:"reply,omitzero"`  // the upstream's, or ours that describes the trouble
}

// Test goes the way of a delivery up to the login and sends nothing. It returns what happened up to the first failure. Its
// connection is its own: it does not count among the places, and the identity hears nothing of the outcome.
func (u *Upstream) Test(ctx context.Context) []Step {
	var steps []Step
	each := func(name string, run func() (string, *fault)) *fault {
		begun := time.Now()
		seen, f := run()
		s := Step{Name: name, OK: f == nil, Took: time.Since(begun), Seen: mail.Printable(seen)}
		if strings.Contains(seen, "\n") {
			s.Seen = seen // of a parsed reply, which is printable line by line
		}
		if f != nil {
			s.Cause, s.Reply = u.explain(f), f.reply
		}
		steps = append(steps, s)
		return f
	}
	if u.cfg.Dial == nil || u.cfg.Resolve != nil {
		f := each("resolve", func() (string, *fault) {
			addrs, f := u.resolve(ctx)
			return joinAddrs(addrs), f
		})
		if f != nil {
			return steps
		}
	}
	c, f := u.open(ctx, u.cfg.Username, each)
	if f != nil {
		return steps
	}
	c.quit()
	u.mu.Lock()
	delete(u.conns, c)
	u.mu.Unlock()
	return steps
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
	return text + ", certificate for " + strings.Join(certificateNames(cert), ", ") + " by " + issuer(cert) +
		", valid until " + cert.NotAfter.UTC().Format(time.DateOnly)
}

func issuer(cert *x509.Certificate) string {
	if n := cert.Issuer.Organization; len(n) > 0 {
		return mail.Printable(n[0])
	}
	return mail.Printable(cert.Issuer.CommonName)
}

// explain says what a failure before MAIL means and what a person can look at.
func (u *Upstream) explain(f *fault) string {
	switch {
	case f.stage == mail.StageResolve:
		return f.reply.Text + ": check host in the configuration, and the name servers of this machine."
	case f.stage == mail.StageConnect:
		return f.reply.Text + ": check host and port, and whether a firewall lets this machine out to port " + u.port() + "."
	case f.stage == mail.StageAuth && u.cfg.Token != nil:
		return u.explainToken(f)
	case f.stage == mail.StageAuth && f.reply.Code == 535:
		return "The upstream refuses the user name or password of " + quote(u.cfg.Username) + ". It may also want an app password, or have password logins switched off for this account."
	case f.stage == mail.StageAuth && f.reply.Code == 534:
		return "The upstream wants another kind of login for " + quote(u.cfg.Username) + ", often an app password."
	case f.stage == mail.StageAuth && f.class == mail.BackPressure:
		return "The upstream cannot check logins now, or has seen too many. This passes without a change here."
	case f.stage == mail.StageTLS && f.class == mail.AccountFault:
		return f.reply.Text + ". Check host, port and tls; if the upstream uses an authority of its own, name its certificate in ca_file."
	case f.stage == mail.StageGreeting && f.reply.Permanent():
		return "The upstream does not serve this machine at all; its address may be blocked there."
	}
	return f.reply.Text
}

func (u *Upstream) port() string { return strconv.Itoa(u.cfg.Port) }

func quote(s string) string { return strconv.Quote(mail.Printable(s)) }
