package operate

import (
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postern/certs"
	"postern/certs/acme"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/monitor"
	"postern/relay/status"
	"postern/relay/store"
)

// Operations on the certificates of the listeners. Records asks the CA for an account, and so is more than looking.
var (
	SeeCertificates    = Operation{Name: "cert list", Role: Viewer, Scope: ScopeRead}
	RenewCertificate   = Operation{Name: "cert renew", Role: Operator, Scope: ScopeAdmin, Audit: true, Staged: true}
	CertificateRecords = Operation{Name: "cert dns", Role: Operator, Scope: ScopeAdmin, Audit: true, Staged: true}
)

// Certificates is what may be done with the certificates of the listeners.
type Certificates struct{ *desk }

// Source is where a certificate comes from.
type Source string

// The sources.
const (
	FromFile   Source = "file"
	FromACME   Source = "acme"
	SelfSigned Source = "self-signed"
)

// Certificate is one that listeners present, or will.
type Certificate struct {
	Source      Source    `json:"source"`
	Name        string    `json:"name,omitempty"`        // that it was asked for; by ACME
	ForDevices  bool      `json:"for_devices,omitempty"` // beside another, at listeners for old devices alone
	File        string    `json:"file,omitempty"`
	Names       []string  `json:"names,omitempty"` // that it covers; none: there is none yet
	Key         string    `json:"key"`
	Issuer      string    `json:"issuer,omitempty"`
	Chain       []string  `json:"chain,omitempty"` // whose certificates go with it
	Begins      time.Time `json:"begins,omitzero"`
	Ends        time.Time `json:"ends,omitzero"`
	DaysLeft    int       `json:"days_left"`
	Fingerprint string    `json:"fingerprint,omitempty"` // SHA-256
	Warnings    []string  `json:"warnings,omitempty"`

	// Of attempts to obtain or renew it.
	Attempted time.Time `json:"attempted,omitzero"`
	Failures  int       `json:"failures"`
	Error     string    `json:"error,omitempty"`
	NextTry   time.Time `json:"next_try,omitzero"`
	Asked     time.Time `json:"asked,omitzero"` // when a person last asked for it
}

// Missing reports that there is none yet.
func (c *Certificate) Missing() bool { return c.Ends.IsZero() }

// List returns every certificate of the listeners.
func (c Certificates) List(ctx context.Context, by Actor) ([]Certificate, error) {
	if err := by.May(SeeCertificates); err != nil {
		return nil, err
	}
	seen, err := c.look(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	all := make([]Certificate, len(seen))
	for i, one := range seen {
		all[i] = one.Certificate
	}
	return all, nil
}

// seenCertificate is one with its chain, its own first; nil: there is none yet.
type seenCertificate struct {
	Certificate
	chain []*x509.Certificate
}

func (c Certificates) look(ctx context.Context, now time.Time) (all []seenCertificate, err error) {
	conf := c.Config()
	states, err := monitor.ACMEStatus(ctx, conf, c.Store)
	if err != nil {
		return nil, err
	}
	missing := false
	for _, one := range states {
		shown := seenCertificate{chain: one.Chain, Certificate: Certificate{Source: FromACME, Name: one.Name,
			Key: strings.ToUpper(string(one.Key)), Attempted: one.State.Attempted, Failures: one.State.Failures,
			Error: one.State.Error, Asked: one.Asked}}
		if one.State.Failures > 0 {
			shown.NextTry = one.State.Next
		}
		if infos := monitor.ACMEInfos([]acme.Status{one}, now); len(infos) > 0 {
			shown.describe(infos[0], now)
		} else {
			missing = true
		}
		all = append(all, shown)
	}
	if conf.TLS.ACME != nil && !missing {
		return all, nil
	}
	infos, err := certs.Check(conf.CertOptions(slog.New(slog.DiscardHandler)), now)
	if err != nil && conf.TLS.ACME == nil {
		return nil, fault(Conflict, "%v", err)
	}
	for _, info := range infos {
		all = append(all, seenInFile(info, now))
	}
	return append(all, companions(conf, all, now)...), nil
}

func seenInFile(info certs.Info, now time.Time) seenCertificate {
	shown := seenCertificate{Certificate: Certificate{Source: FromFile}, chain: info.Chain}
	if info.SelfSigned {
		shown.Source = SelfSigned
	}
	shown.describe(info, now)
	return shown
}

// companions are the RSA certificates that listeners for old devices present beside the others.
func companions(conf *config.Config, others []seenCertificate, now time.Time) (all []seenCertificate) {
	o, wanted := conf.CompanionOptions(slog.New(slog.DiscardHandler))
	if !wanted {
		return nil
	}
	infos, err := certs.Check(o, now)
	if err != nil {
		return nil // check and doctor say so
	}
	for _, info := range infos {
		if strings.HasPrefix(info.Key, "RSA") && !slices.ContainsFunc(others, func(c seenCertificate) bool {
			return c.Fingerprint == info.Fingerprint
		}) {
			one := seenInFile(info, now)
			one.ForDevices = true
			all = append(all, one)
		}
	}
	return all
}

func (c *Certificate) describe(info certs.Info, now time.Time) {
	c.File, c.Names, c.Key, c.Warnings = info.File, info.Names, info.Key, info.Warnings
	c.Ends, c.DaysLeft, c.Fingerprint = info.NotAfter, status.Days(info.NotAfter, now), info.Fingerprint
	for i, one := range info.Chain {
		if i == 0 {
			c.Issuer, c.Begins = one.Issuer.String(), one.NotBefore
			continue
		}
		c.Chain = append(c.Chain, one.Subject.String())
	}
}

// Renew has the daemon get new certificates for a name now, or with "" for every name, whether it is time or not. It
// returns the names and when it was asked; List says how the attempt went.
func (c Certificates) Renew(ctx context.Context, by Actor, name string) (names []string, asked time.Time, err error) {
	conf := c.Config()
	if names, err = namesOf(conf, name); err != nil {
		return nil, asked, err
	}
	asked = time.Now()
	err = c.act(ctx, by, RenewCertificate, strings.Join(names, ", "), func(ctx context.Context, _ *string) error {
		states, err := monitor.ACMEStatus(ctx, conf, c.Store)
		if err != nil {
			return err
		}
		for _, one := range states {
			if one.State.Until.After(asked) && slices.Contains(names, one.Name) {
				return fault(Conflict, "the CA said not to ask for %s before %s: %s", one.Name,
					one.State.Until.UTC().Format(time.RFC3339), one.State.Error)
			}
		}
		for _, name := range names {
			if err := acme.Ask(ctx, c.Store.ACME(), name, asked); err != nil {
				return err
			}
		}
		return nil
	})
	return names, asked, err
}

// namesOf are the names of certificates by ACME, or the one that somebody typed.
func namesOf(conf *config.Config, name string) ([]string, error) {
	names := conf.ACMENames()
	if len(names) == 0 {
		return nil, fault(Conflict, "there is no [tls.acme] in %s: certificates from files are renewed by who made "+
			"them", conf.Path())
	}
	if name == "" {
		return names, nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !slices.Contains(names, name) {
		return nil, fault(NotFound, "%q is not among the names of [tls.acme], which are %s",
			mail.Printable(mail.Cut(name, maxNamed)), strings.Join(names, ", "))
	}
	return []string{name}, nil
}

// Running reports whether a daemon runs that does what Renew asks for.
func (c Certificates) Running() bool { return store.Serving(store.Of(c.Config())) }

// Records are the DNS records that a person has to publish once for the challenges of [tls.acme]. An account is
// registered at the CA, or at the server of acme-dns, where there is none yet: it is part of the records.
func (c Certificates) Records(ctx context.Context, by Actor) (records []acme.Record, err error) {
	conf := c.Config()
	names, err := namesOf(conf, "")
	if err != nil {
		return nil, err
	}
	subject := strings.Join(names, ", ")
	err = c.act(ctx, by, CertificateRecords, subject, func(ctx context.Context, _ *string) (err error) {
		records, err = c.records(ctx, conf, names)
		return err
	})
	return records, err
}

func (c Certificates) records(ctx context.Context, conf *config.Config, names []string) (all []acme.Record, err error) {
	keep, a := c.Store.ACME(), conf.TLS.ACME
	if slices.Contains(a.Challenges, acme.Persist01) {
		o, err := conf.ACMEOptions(keep, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		if all, err = acme.PersistRecords(ctx, *o); err != nil {
			return nil, fault(Conflict, "the account at the CA, which the record names, could not be had: %v", err)
		}
	}
	if slices.Contains(a.Challenges, acme.DNS01) && a.AcmeDNS != nil {
		target, err := a.AcmeDNS.Client(keep, nil).Target(ctx)
		if err != nil {
			return nil, fault(Conflict, "the account at the server of acme-dns could not be had: %v", err)
		}
		for _, name := range names {
			all = append(all, acme.Record{Name: "_acme-challenge." + name, Type: "CNAME", Value: target + "."})
		}
	}
	if len(all) == 0 {
		return nil, fault(Conflict, "the challenges of [tls.acme] (%s) need no record that a person publishes",
			strings.Join(a.Challenges, ", "))
	}
	return all, nil
}
