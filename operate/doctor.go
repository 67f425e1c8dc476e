package operate

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/doctor"
	"postern/relay/domains"
	"postern/relay/finding"
	"postern/relay/store"
)

// Doctor looks at everything that can be wrong.
type Doctor struct {
	*desk
	last *examination
	seen *reports
}

// examination is the last one of this process. One runs at a time: it logs in at every provider.
type examination struct {
	running sync.Mutex
	mu      sync.Mutex // guards report
	report  *doctor.Report
}

// Last is the last examination of this process, nil if there was none.
func (d Doctor) Last(by Actor) (*doctor.Report, error) {
	if err := by.May(SeeDoctor); err != nil {
		return nil, err
	}
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	return d.last.report, nil
}

// Remember makes a report the last one.
func (d Doctor) Remember(r *doctor.Report) {
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	d.last.report = r
}

// Examine looks at everything now, which may take minutes. While another examination runs, that is a Conflict.
func (d Doctor) Examine(ctx context.Context, by Actor) (r *doctor.Report, err error) {
	err = d.act(ctx, by, Examine, "", func(ctx context.Context, detail *string) error {
		if !d.last.running.TryLock() {
			return fault(Conflict, "an examination is under way: look again in a minute")
		}
		defer d.last.running.Unlock()
		r, err = doctor.Examine(ctx, d.ExamOptions(LookOptions{}))
		if err != nil {
			return err
		}
		d.Remember(r)
		*detail = r.Worst.String()
		return nil
	})
	return r, err
}

// ExamOptions are those of an examination whose look at DNS serves Domains, too.
func (d Doctor) ExamOptions(look LookOptions) doctor.Options {
	look.Seen = d.seen.keep
	return DoctorOptions(d.Config().Path(), d.Version, look)
}

// DoctorOptions are those of an examination of everything, DNS among it.
func DoctorOptions(path, version string, look LookOptions) doctor.Options {
	return doctor.Options{Path: path, Version: version, More: func(c *config.Config) []doctor.Examiner {
		return []doctor.Examiner{{Name: "dns", Timeout: longestLook, Look: func(ctx context.Context) []finding.Finding {
			return examineDNS(ctx, c, look)
		}}}
	}}
}

// Unwatched are the examiners of what no alert of its own watches.
var Unwatched = []string{"config", "listeners", "clock", "files", "store", "accounts", "devices", "dns"}

// examineDNS looks at the DNS of all domains that mail is sent from.
func examineDNS(ctx context.Context, c *config.Config, look LookOptions) (list []finding.Finding) {
	s, _, err := store.OpenToLook(ctx, store.Of(c)) // [[dkim]] and policies name domains, too
	if err != nil {
		return nil // the examination of the store says so
	}
	defer s.Close()
	plan, err := domains.New(ctx, domains.Options{Config: c, Store: s, Resolver: look.Resolver,
		Addresses: look.Addresses})
	if err != nil {
		return []finding.Finding{{Code: "dns-not-looked-at", Weight: finding.Fault, What: "DNS was not looked at: " +
			err.Error(), Why: "Whether receivers take our mail for genuine is not known.",
			Fix: "See whether /etc/resolv.conf names a resolver and the store can be read, then run postern " +
				"doctor again."}}
	}
	for _, r := range plan.CheckAll(ctx, time.Now()) {
		if look.Seen != nil {
			look.Seen(r, plan.Domains())
		}
		list = append(list, ofDomain(r)...)
	}
	return list
}

// ofDomain are the findings of a report, with what they come to where that is bad.
func ofDomain(r dnscheck.Report) []finding.Finding {
	list := slices.Clone(r.Findings) // others read the report
	for i := range list {
		if list[i].Subject == "" {
			list[i].Subject = r.Domain
		}
	}
	if finding.Worst(list) == finding.Healthy {
		list = append(list, finding.Finding{Code: "dns-ok", Weight: finding.Healthy, Subject: r.Domain,
			What: fmt.Sprintf("DNS of %s is in order.", r.Domain)})
	}
	return list
}
