package oauth

import (
	"context"
	"time"

	"postern/internal/periodic"
)

const (
	// keepAfter is how long a grant may be idle. Refreshing weekly keeps it alive wherever idle grants end (Microsoft
	// 90 days, Google six months); a day is left for trouble.
	keepAfter = 6 * day
	// keepEvery is how often that is looked at.
	keepEvery = time.Hour
	// warnAhead is how long before its end something is Soon.
	warnAhead = 30 * day
)

// Run keeps an idle grant alive until ctx ends, and then closes the Source. It never fails: what goes wrong is logged,
// is what Token answers, and is tried again.
func (s *Source) Run(ctx context.Context) error {
	defer s.Close()
	for {
		if s.o.Flow.Delegated() {
			s.keep(ctx)
		}
		if periodic.Sleep(ctx, keepEvery+time.Duration(s.o.Jitter()*float64(keepEvery)/10)) != nil {
			return nil
		}
	}
}

// keep refreshes the grant if it was idle for too long.
func (s *Source) keep(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g, _, err := s.loadGrant(bounded)
	if err != nil || g.Refreshed.IsZero() || time.Since(g.Refreshed) < keepAfter {
		return // without a grant there is nothing to keep; Token says so to those who need it
	}
	if _, err := s.Token(bounded, s.o.Username); err == nil {
		s.o.Logger.Info("idle consent kept alive", "idle", time.Since(g.Refreshed).Round(time.Hour))
	}
}

// Expiry is something that ends and that a person has to renew.
type Expiry struct {
	What      string    `json:"what"` // "client secret", "certificate", "consent"
	At        time.Time `json:"at"`
	Soon      bool      `json:"soon"`      // within 30 days, or over
	Estimated bool      `json:"estimated"` // by the provider's rule, not by its word
	Fix       string    `json:"fix"`
}

// Load reads the grant, so that Expiries knows of it. Run does it too.
func (s *Source) Load(ctx context.Context) error {
	if !s.o.Flow.Delegated() {
		return nil
	}
	if _, _, err := s.loadGrant(ctx); err != nil {
		return err
	}
	return nil
}

// Expiries tells what will end and when, as far as that is known.
func (s *Source) Expiries(now time.Time) []Expiry {
	var all []Expiry
	add := func(what string, at time.Time, estimated bool, fix string) {
		if !at.IsZero() {
			all = append(all, Expiry{what, at, !now.Before(at.Add(-warnAhead)), estimated, s.names.Replace(fix)})
		}
	}
	if !s.o.ClientSecret.IsZero() {
		add("client secret", s.o.ClientSecretExpires, false,
			"make a new client secret for application {client}, set client_secret and expires, and delete the old one")
	}
	if s.cert != nil {
		add("certificate", s.cert.leaf.NotAfter, false, "make a new certificate for application {client}, upload it "+
			"there, and write it and its key to certificate_file and key_file")
	}
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	switch {
	case !s.o.Flow.Delegated():
	case !known.ends.IsZero():
		add("consent", known.ends, false, fixLogin)
	case !known.refreshed.IsZero() && s.p.idle > 0:
		add("consent", known.refreshed.Add(s.p.idle), true, s.p.idleFrom+"; it is renewed weekly by itself, so look "+
			"why that fails, or "+fixLogin)
	}
	return all
}
