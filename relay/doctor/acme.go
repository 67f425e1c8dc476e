package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"postern/certs"
	"postern/certs/acme"
	"postern/relay/finding"
	"postern/relay/monitor"
)

// presented describes the certificates that the listeners present, and how it stands with those by ACME: what cannot be
// read of these is not known.
func (x *exam) presented(ctx context.Context) ([]certs.Info, []acme.Status, error) {
	infos, err := certs.Check(x.c.CertOptions(slog.New(slog.DiscardHandler)), x.now)
	if x.c.TLS.ACME == nil {
		return infos, nil, err
	}
	s, openErr := x.openStore(ctx)
	if openErr != nil || s == nil {
		return infos, nil, err // store says so
	}
	defer s.Close()
	list, _ := monitor.ACMEStatus(ctx, x.c, s)
	if found := monitor.ACMEInfos(list, x.now); len(found) > 0 {
		return found, list, nil
	}
	return infos, list, err
}

// acme says which certificates cannot be obtained or renewed.
func (x certificateExam) acme(states []acme.Status) (list []finding.Finding) {
	told := map[string]bool{}
	for _, one := range states {
		if one.State.Failures == 0 || told[one.Name] {
			continue
		}
		told[one.Name] = true
		w, what := finding.Fault, "cannot be renewed"
		why := "Nothing happens before it ends, but then mail programs and devices do not connect any more."
		if len(one.Chain) == 0 {
			what, why = "cannot be obtained", "Until there is one the listeners present a self-signed certificate: "+
				"mail programs warn, and many devices do not connect."
		} else if infos := monitor.ACMEInfos([]acme.Status{one}, x.now); infos[0].RenewalLate(x.now) {
			w = finding.Danger
		}
		list = append(list, found(codeCertificateACME, w, one.Name, fmt.Sprintf("The certificate for %s %s from the "+
			"CA, since %s: %s", one.Name, what, one.State.Since.UTC().Format("2006-01-02 15:04"),
			sentence(said(one.State.Error))), why, fmt.Sprintf("Mend that, then run: postern cert renew %s\nWithout "+
			"that it is tried again at %s.", one.Name, one.State.Next.UTC().Format(time.RFC3339))))
	}
	return list
}
