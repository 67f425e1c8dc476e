package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/upstream/oauth"
)

const (
	// ExpiryAhead is how long before its end a certificate raises an alert. A self-signed one renews itself at that
	// time, so it gets a day of grace.
	ExpiryAhead  = 30 * 24 * time.Hour
	renewalGrace = 24 * time.Hour
)

// certificates alerts of certificates that end soon: ours, and those that we present to upstreams.
func (m *Monitor) certificates(ctx context.Context, now time.Time) {
	list, err := ACMEStatus(ctx, m.InForce().Config, m.Store)
	hold := acmeConditions(list, now)
	if err != nil {
		m.Logger.Warn("how it stands with certificates by ACME cannot be read", "err", err)
		hold = slices.DeleteFunc(m.alerter.Open(alert.CertificateExpiry), func(c alert.Condition) bool {
			return !strings.HasPrefix(c.Subject, "acme:")
		})
	}
	for _, info := range m.Certs() {
		if info.Issued {
			if info.RenewalLate(now) {
				hold = append(hold, expiring("listeners", info.File, info.NotAfter, now,
					"mail programs and devices will not connect",
					"it should have been renewed by itself; what is in the way: postern cert list"))
			}
			continue
		}
		ahead := ExpiryAhead
		if info.SelfSigned && m.InForce().Config.TLS.CertFile == "" {
			ahead -= renewalGrace
		}
		if info.NotAfter.Sub(now) <= ahead {
			hold = append(hold, expiring("listeners", info.File, info.NotAfter, now,
				"mail programs and devices will not connect",
				"renew it and write the new one to the same file; it is read again without a restart"))
		}
	}
	for _, up := range m.InForce().Routes.Upstreams {
		file := up.Config.CertFile
		if file == "" {
			continue
		}
		end, err := outbound.CertificateEnd(file)
		if err != nil {
			hold = append(hold, told(m.alerter, alert.CertificateExpiry, file)...) // a file that is just being replaced
			continue
		}
		if end.Sub(now) <= ExpiryAhead {
			hold = append(hold, expiring("upstream "+up.Config.Name, file, end, now,
				"the provider will not take our mail",
				"renew it at whoever made it, make it known to the provider, and write it to the same file"))
		}
	}
	m.alerter.Set(alert.CertificateExpiry, hold)
}

func expiring(where, file string, end, now time.Time, otherwise, fix string) alert.Condition {
	return alert.Condition{
		Event: alert.CertificateExpiry, Subject: file,
		Summary: fmt.Sprintf("The certificate of %s in %s %s: %s. What to do: %s.", where, file, EndsInWords(end, now),
			otherwise, fix),
		Over:    "The certificate was renewed, or is not used any more.",
		Details: map[string]string{"file": file, "used_by": where, "ends": clock(end)},
	}
}

// EndsInWords says in words when something ends.
func EndsInWords(end, now time.Time) string {
	day := end.UTC().Format(time.DateOnly)
	left := end.Sub(now)
	switch {
	case left <= 0:
		return "ended on " + day
	case left < 48*time.Hour:
		return fmt.Sprintf("ends on %s, in %d hours", day, int(left.Hours()))
	}
	return fmt.Sprintf("ends on %s, in %d days", day, int(left.Hours()/24))
}

// secrets alerts of client secrets, certificates and consents for upstreams that end soon.
func (m *Monitor) secrets(ctx context.Context, now time.Time) {
	var hold []alert.Condition
	for _, up := range m.InForce().Routes.Upstreams {
		secrets, err := up.Secrets(ctx, now)
		if err != nil && !errors.Is(err, oauth.ErrNoGrant) {
			hold = append(hold, told(m.alerter, alert.SecretExpiry, secretSubject(up.Config.Name, "consent"))...)
		}
		for _, e := range secrets {
			if !e.Soon {
				continue
			}
			about := ""
			if e.Estimated {
				about = " (as far as is known)"
			}
			hold = append(hold, alert.Condition{
				Event: alert.SecretExpiry, Subject: secretSubject(up.Config.Name, e.What),
				Summary: fmt.Sprintf("The %s that upstream %s is logged in with %s%s; without it no mail leaves "+
					"there. What to do: %s.",
					e.What, up.Config.Name, EndsInWords(e.At, now), about, strings.TrimSuffix(e.Fix, ".")),
				Over: "It was renewed, or is not used any more.",
				Details: map[string]string{"upstream": up.Config.Name, "what": e.What, "ends": clock(e.At),
					"estimated": fmt.Sprint(e.Estimated), "fix": e.Fix},
			})
		}
	}
	for _, up := range m.InForce().Routes.Upstreams {
		hold = append(hold, endings(&up.Config, now)...)
	}
	m.alerter.Set(alert.SecretExpiry, hold)
}

// endings alerts of what a provider will not take any more.
func endings(u *config.Upstream, now time.Time) (hold []alert.Condition) {
	for _, e := range EndsOf(u) {
		if e.At().Sub(now) > e.Before() {
			continue
		}
		hold = append(hold, alert.Condition{
			Event: alert.SecretExpiry, Subject: secretSubject(u.Name, e.What),
			Summary: fmt.Sprintf("The %s that upstream %s is logged in with %s; without it no mail leaves there. "+
				"What to do: %s.", e.What, u.Name, EndsInWords(e.At(), now), strings.TrimSuffix(e.Fix, ".")),
			Over: "It is not used any more.",
			Details: map[string]string{"upstream": u.Name, "what": e.What, "ends": clock(e.At()),
				"provider": u.Provider, "fix": e.Fix},
		})
	}
	return hold
}

func secretSubject(upstream, what string) string { return "upstream " + upstream + ", " + what }

// told returns an open alert unchanged, for a condition that cannot be checked now.
func told(a *alert.Alerter, e alert.Event, subject string) []alert.Condition {
	return slices.DeleteFunc(a.Open(e), func(c alert.Condition) bool { return c.Subject != subject })
}
