package monitor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postern/certs"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/status"
	relaystore "postern/relay/store"
	"postern/relay/upstream"
	"postern/relay/upstream/advice"
	"postern/relay/upstream/oauth"
	"postern/relay/upstream/profile"
)

// Status is the state of the parts now: of all but the process and its listeners.
func (m *Monitor) Status(ctx context.Context) *status.Report {
	in, now := m.InForce(), time.Now()
	r := newStatus(in.Config, now)
	addUpstreams(r, in.Routes, now)
	queueStatus(ctx, r, m.Store)
	learningStatus(ctx, r, m.Store, r.Time)
	addCertificates(r, in.Config, m.Certs(), now)
	if list, err := ACMEStatus(ctx, in.Config, m.Store); err == nil {
		addACME(r, list)
	}
	for _, up := range in.Routes.Upstreams {
		secrets, _ := up.Secrets(ctx, now) // what cannot be read is not known
		addSecrets(r, up.Config.Name, secrets, now)
		addEnds(r, &up.Config, now)
	}
	diskStatus(ctx, r, m.Store)
	nodesStatus(ctx, r, m.Store)
	if err := m.Room.Short(now); err != nil {
		r.Disk.Refuses, r.Disk.Problem = m.Room.Full() != nil && m.Room.Away() == nil, mail.Reason(err)
		r.Disk.Away = r.Disk.Refuses && databaseAway(err)
	}
	return r
}

// Notes are the lines of /readyz about upstreams.
func (m *Monitor) Notes() []string {
	in, now := m.InForce(), time.Now()
	r := newStatus(in.Config, now)
	addUpstreams(r, in.Routes, now)
	return r.Notes()
}

func addUpstreams(r *status.Report, routes *outbound.Routes, now time.Time) {
	for i, up := range routes.Upstreams {
		reportUpstream(&r.Upstreams[i], up, now)
	}
	for i, rule := range routes.Rules {
		works := func(up *outbound.Upstream) bool { return r.Upstreams[slices.Index(routes.Upstreams, up)].Works() }
		if !slices.ContainsFunc(rule.Upstreams, works) {
			r.Unreachable = append(r.Unreachable, fmt.Sprintf("route[%d]", i+1))
		}
	}
}

// newStatus is a Report of what the configuration says.
func newStatus(c *config.Config, now time.Time) *status.Report {
	r := &status.Report{Time: now, Hostname: c.Hostname, Config: c.Path(), Listeners: []status.Listener{},
		Upstreams:    []status.Upstream{},
		Certificates: []status.Certificate{}, Secrets: []status.Secret{}}
	for _, l := range c.Listeners {
		r.Listeners = append(r.Listeners, status.Listener{Name: l.Name, Address: l.Address, TLS: l.TLS, Auth: l.Auth})
	}
	for i := range c.Auth.Sources {
		if s := &c.Auth.Sources[i]; s.Remote() {
			r.Sources = append(r.Sources, status.Source{Name: s.Name, Type: s.Type})
		}
	}
	for _, u := range c.Upstreams {
		r.Upstreams = append(r.Upstreams, status.Upstream{Name: u.Name, Provider: u.Provider, Host: u.Host,
			Port: u.Port, TLS: u.TLS,
			Identities: []status.Identity{}})
	}
	r.Queue.Sleeping = []status.Sleeping{}
	r.Disk = status.Disk{Dir: c.DataDir, MinFree: int64(c.Store.MinFree), MaxSize: int64(c.Store.MaxSize)}
	if c.Store.URL.Server() {
		r.Disk.Server, r.Disk.MinFree = c.Store.URL.Place(), 0
	}
	return r
}

// reportUpstream says what an upstream is doing. The state is the best of its identities: each is an account of its
// own.
func reportUpstream(u *status.Upstream, up *outbound.Upstream, now time.Time) {
	states := up.States()
	all, ready, paused := make([]status.Identity, 0, len(states)), 0, 0
	for _, s := range states {
		id := identityStatus(&s)
		u.Connection += s.InUse + s.Idle + s.Closing
		switch {
		case s.Status == upstream.Ready:
			ready++
		case up.SentAsUsername(s.Identity, now):
			id.Instead = up.Config.Username
		case s.Status == upstream.Paused:
			paused, u.Waiting = paused+1, u.Waiting+1
		default:
			u.Waiting++
		}
		all = append(all, id)
	}
	slices.SortStableFunc(all, worse)
	u.Total, u.Identities = len(all), all[:min(len(all), status.Most)]
	switch {
	case u.Waiting == 0:
		u.State = status.Works
	case ready > 0:
		u.State = status.Partly
	case paused > 0:
		u.State = status.Paused
	case strings.Contains(all[0].Code, " 4.4."): // RFC 3463 §3.5: network
		u.State = status.Unreachable
	default:
		u.State = status.BackingOff
	}
	for i := range u.Identities {
		id := &u.Identities[i]
		k := slices.IndexFunc(states, func(s upstream.State) bool { return s.Identity == id.Identity })
		if id.Instead == "" {
			id.Cause, id.Fix = adviceWords(up.Config.Provider, states[k].Reply, id.Identity, "")
		}
	}
	reportSenders(u, up, now)
}

func identityStatus(s *upstream.State) status.Identity {
	id := status.Identity{Identity: s.Identity, Status: s.Status, Since: s.Since, NextTry: s.Until, Trying: s.Probing,
		Failures: s.Failures, Limit: s.Limit, InUse: s.InUse, Idle: s.Idle, Rates: s.Rates}
	if s.Reply.Code != 0 {
		id.Reply, id.Code = s.Reply.String(), strings.TrimSpace(fmt.Sprintf("%d %s", s.Reply.Code, s.Reply.Enhanced))
	}
	return id
}

// worse sorts identities: paused ones, then those that back off, each the longest first; those that work, the busiest
// first.
func worse(a, b status.Identity) int {
	weight := func(id *status.Identity) int {
		switch {
		case id.Status == upstream.Ready:
			return 2
		case id.Instead != "":
			return 3
		case id.Status == upstream.Paused:
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(weight(&a), weight(&b)), a.Since.Compare(b.Since), cmp.Compare(b.InUse, a.InUse))
}

func reportSenders(u *status.Upstream, up *outbound.Upstream, now time.Time) {
	denied := up.Denied(now)
	u.Denied = len(denied)
	for _, d := range denied[:min(len(denied), status.Most)] {
		s := status.Sender{Sender: d.Sender, Identity: d.Identity, Refusals: d.Refusals, NextTry: d.Until,
			Reply: d.Reply.String()}
		s.Cause, s.Fix = adviceWords(up.Config.Provider, d.Reply, d.Identity, d.Sender)
		u.Senders = append(u.Senders, s)
	}
	storms := up.Storms().Raging()
	u.Storming = len(storms)
	for _, s := range storms[:min(len(storms), status.Most)] {
		u.Storms = append(u.Storms, status.Storm{Since: s.Since, Sender: s.Sender, Reply: s.Reply.String(),
			Kept: s.Kept})
	}
}

func adviceWords(provider string, r mail.Reply, identity, sender string) (cause, fix string) {
	known := advice.For(provider, advice.AnyStage, r)
	if known == nil {
		return "", ""
	}
	known = known.Filled(identity, sender)
	return known.Cause, strings.Join(known.Fix, "\n")
}

func queueStatus(ctx context.Context, r *status.Report, s *relaystore.Store) {
	q, err := s.Stats(ctx)
	if err != nil {
		r.Queue.Problem = err.Error()
		return
	}
	r.Queue.Held, r.Queue.Sending, r.Queue.Waiting = q.Held, q.Leased, max(0, q.Messages-q.Held-q.Leased)
	r.Queue.Octets, r.Queue.Oldest = q.Bytes, q.Oldest
	sleeping, err := s.Sleeping(ctx, status.Most)
	if err != nil {
		r.Queue.Problem = err.Error()
	}
	for _, w := range sleeping {
		r.Queue.Sleeping = append(r.Queue.Sleeping, status.Sleeping{Upstream: w.For, Messages: w.Messages})
	}
}

// addCertificates adds those of the listeners, as given, and those that upstreams are shown.
func addCertificates(r *status.Report, c *config.Config, infos []certs.Info, now time.Time) {
	for _, info := range infos {
		r.Certificates = append(r.Certificates, status.Certificate{File: info.File, UsedBy: "listeners",
			Names: info.Names, Key: info.Key,
			Ends: info.NotAfter, DaysLeft: status.Days(info.NotAfter, now), Problem: strings.Join(info.Warnings, "; ")})
	}
	for i := range r.Listeners {
		if l := &r.Listeners[i]; l.TLS != config.NoTLS && len(infos) > 0 {
			l.Certificate = infos[0].File
		}
	}
	for _, u := range c.Upstreams {
		if u.CertFile == "" {
			continue
		}
		shown := status.Certificate{File: u.CertFile, UsedBy: "upstream " + u.Name}
		if end, err := outbound.CertificateEnd(u.CertFile); err != nil {
			shown.Problem = err.Error()
		} else {
			shown.Ends, shown.DaysLeft = end, status.Days(end, now)
		}
		r.Certificates = append(r.Certificates, shown)
	}
}

func addSecrets(r *status.Report, name string, expiries []oauth.Expiry, now time.Time) {
	for _, e := range expiries {
		r.Secrets = append(r.Secrets, status.Secret{Upstream: name, What: e.What, Ends: e.At,
			DaysLeft:  status.Days(e.At, now),
			Estimated: e.Estimated, Fix: e.Fix})
	}
}

// addEnds adds what the provider of an upstream will not take any more.
func addEnds(r *status.Report, u *config.Upstream, now time.Time) {
	for _, e := range EndsOf(u) {
		r.Secrets = append(r.Secrets, status.Secret{Upstream: u.Name, What: e.What, Ends: e.At(),
			DaysLeft: status.Days(e.At(), now), Fix: e.Fix, Ahead: e.Ahead})
	}
}

// EndsOf is what the provider of an upstream will not take any more of what the upstream uses.
func EndsOf(u *config.Upstream) []profile.End {
	return profile.Ends(u.Provider, u.Host, u.OAuth == nil && u.Password.IsSet())
}

func diskStatus(ctx context.Context, r *status.Report, s *relaystore.Store) {
	room, err := s.Room(ctx)
	if err != nil {
		r.Disk.Problem = err.Error()
		return
	}
	r.Disk.Free, r.Disk.MinFree, r.Disk.Queued = room.Free, max(0, room.Floor), room.Queued
	r.Disk.MaxSize, r.Disk.File = room.Max, room.File
}

// StatusAlone is what can be said while no daemon runs: what the configuration, its files and the store say.
func StatusAlone(ctx context.Context, c *config.Config) *status.Report {
	now := time.Now()
	r := newStatus(c, now)
	infos, err := certs.Check(c.CertOptions(slog.New(slog.DiscardHandler)), now)
	if c.TLS.ACME == nil { // those of ACME are in the store, below
		addCertificates(r, c, infos, now)
	}
	if err != nil {
		r.Certificates = append(r.Certificates, status.Certificate{File: c.TLS.CertFile, UsedBy: "listeners",
			Problem: err.Error()})
	}
	for _, u := range c.Upstreams {
		if expiries, err := outbound.Expiries(u, now); err == nil {
			addSecrets(r, u.Name, expiries, now)
		}
		addEnds(r, &u, now)
	}
	s, err := relaystore.OpenThere(ctx, relaystore.Of(c))
	switch {
	case err != nil:
		r.Queue.Problem = err.Error()
	case s != nil: // else the first start makes it
		defer s.Close()
		storeStatus(ctx, r, c, s, infos, now)
	}
	r.Summarize()
	return r
}

// storeStatus adds what the store says while no daemon runs. Infos are the certificates where ACME has none.
func storeStatus(ctx context.Context, r *status.Report, c *config.Config, s *relaystore.Store, infos []certs.Info,
	now time.Time) {
	list, _ := ACMEStatus(ctx, c, s) // as there was none
	if found := ACMEInfos(list, now); len(found) > 0 {
		infos = found
	}
	if c.TLS.ACME != nil {
		addCertificates(r, c, infos, now)
		addACME(r, list)
	}
	queueStatus(ctx, r, s)
	learningStatus(ctx, r, s, r.Time)
	diskStatus(ctx, r, s)
	nodesStatus(ctx, r, s)
	if err := s.Writable(); err != nil {
		r.Disk.Refuses, r.Disk.Problem = true, err.Error()
	}
}
