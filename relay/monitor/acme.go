package monitor

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"postern/certs"
	"postern/certs/acme"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// ACMEStatus is how it stands with the certificates that [tls.acme] asks for; none without it.
func ACMEStatus(ctx context.Context, c *config.Config, s *relaystore.Store) ([]acme.Status, error) {
	if c.TLS.ACME == nil || s == nil {
		return nil, nil
	}
	return acme.List(ctx, s.ACME(), c.TLS.ACME.DirectoryURL, c.ACMENames(), c.ACMEKeys())
}

// ACMEInfos describes the certificates among them that there are.
func ACMEInfos(list []acme.Status, now time.Time) (infos []certs.Info) {
	for _, one := range list {
		if len(one.Chain) == 0 {
			continue
		}
		shown := tls.Certificate{Leaf: one.Chain[0]}
		for _, c := range one.Chain {
			shown.Certificate = append(shown.Certificate, c.Raw)
		}
		infos = append(infos, certs.InfoOf(certs.Issued{Name: one.Name, Certificate: shown}, now))
	}
	return infos
}

// acmeTroubled is from how many failures in a row renewal is a matter for a person: the first ones are often the
// network's, and there are weeks left. Without any certificate clients warn already.
const acmeTroubled = 3

// acmeConditions are the certificates that cannot be obtained or renewed.
func acmeConditions(list []acme.Status, now time.Time) (hold []alert.Condition) {
	told := map[string]bool{}
	for _, one := range list {
		none := len(one.Chain) == 0
		if one.State.Failures == 0 || !none && one.State.Failures < acmeTroubled || told[one.Name] {
			continue
		}
		told[one.Name] = true
		what, otherwise := "cannot be renewed", "mail programs and devices will not connect once it has ended"
		if none {
			what, otherwise = "cannot be obtained", "mail programs warn of the self-signed one, and many devices do "+
				"not connect"
		} else {
			otherwise += " (it " + EndsInWords(one.Chain[0].NotAfter, now) + ")"
		}
		hold = append(hold, alert.Condition{
			Event: alert.CertificateExpiry, Subject: "acme:" + one.Name,
			Summary: fmt.Sprintf("The certificate for %s %s from the CA since %s: %s. Otherwise %s. What to do: mend "+
				"that, then: postern cert renew %s.", one.Name, what, clock(one.State.Since), one.State.Error,
				otherwise, one.Name),
			Over: "The certificate was obtained, or is not asked for any more.",
			Details: map[string]string{"name": one.Name, "reason": one.State.Error,
				"failures": fmt.Sprint(one.State.Failures), "since": clock(one.State.Since),
				"next_try": clock(one.State.Next)},
		})
	}
	return hold
}

// addACME adds to a report what cannot be obtained or renewed. The certificates that there are stand in it already.
func addACME(r *status.Report, list []acme.Status) {
	for _, one := range list {
		trouble := ACMETrouble(one)
		file := fmt.Sprintf("acme:%s (%s", one.Name, strings.ToUpper(string(one.Key)))
		found := false
		for i := range r.Certificates {
			if c := &r.Certificates[i]; strings.HasPrefix(c.File, file) {
				found = true
				c.Problem = strings.TrimPrefix(c.Problem+"; "+trouble, "; ")
				c.Problem = strings.TrimSuffix(c.Problem, "; ")
			}
		}
		if !found {
			r.Certificates = append(r.Certificates, status.Certificate{File: file + ")", UsedBy: "listeners",
				Names: []string{one.Name}, Key: strings.ToUpper(string(one.Key)), Problem: trouble})
		}
	}
}

// ACMETrouble says what is in the way of a certificate; "" if nothing is.
func ACMETrouble(one acme.Status) string {
	switch {
	case one.State.Failures > 0:
		return fmt.Sprintf("the last attempt failed at %s: %s; the next is at %s", clock(one.State.Attempted),
			one.State.Error, clock(one.State.Next))
	case len(one.Chain) == 0:
		return "there is none yet"
	}
	return ""
}
