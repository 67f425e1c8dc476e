// Package dns01 publishes the records by which a CA finds out that a name is ours (ACME's dns-01, RFC 8555 §8.4): at a
// name server that takes updates (RFC 2136), at an acme-dns server, or by a program of the operator's.
//
// Failure semantics: Present returns nil when the record is published; whether every server shows it is looked at for a
// bounded time and is then left to the CA. What goes to servers and programs is checked first: a name of letters,
// digits, hyphens and underscores, a value of base64url. What they answer is bounded.
package dns01

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"
)

// maxText bounds a name and a value, in octets.
const maxText = 255

// check refuses what is no name or value of dns-01.
func check(name, value string) error {
	odd := func(r rune) bool { return !alphanumeric(r) && r != '.' && r != '-' && r != '_' }
	if !strings.HasPrefix(name, "_acme-challenge.") || len(name) > maxText || strings.ContainsFunc(name, odd) ||
		strings.Contains(name, "..") || strings.Contains(name, ".-") {
		return fmt.Errorf("%.80q is no name of a record for dns-01", name)
	}
	if value == "" || len(value) > maxText || strings.ContainsFunc(value, func(r rune) bool {
		return !alphanumeric(r) && r != '-' && r != '_'
	}) {
		return fmt.Errorf("%.80q is no value of a record for dns-01", value)
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// Watch looks whether records have arrived at the name servers of their zone.
type Watch struct {
	Resolver *net.Resolver // finds name servers; nil: the system's
	Port     string        // of name servers; "": 53
	Limit    time.Duration // how long to look; 0: 2 minutes
	Logger   *slog.Logger
}

// How name servers are asked.
const (
	watchLimit = 2 * time.Minute
	watchEvery = 3 * time.Second
	askTime    = 5 * time.Second
	maxServers = 8
)

// Await waits until every name server of a zone shows a TXT record, but not for long. It returns an error only if ctx
// ends: where no name server can be found or asked from here, the CA can perhaps.
func (w *Watch) Await(ctx context.Context, name, value string) error {
	limit, cancel := context.WithTimeout(ctx, cmp.Or(w.Limit, watchLimit))
	defer cancel()
	servers := w.servers(limit, name)
	for len(servers) > 0 {
		servers = slices.DeleteFunc(servers, func(address string) bool { return w.shows(limit, address, name, value) })
		if len(servers) == 0 {
			break
		}
		select {
		case <-limit.Done():
			if ctx.Err() == nil && w.Logger != nil {
				w.Logger.Warn("not every name server shows the record for the CA yet; the CA is asked to look all the "+
					"same", "name", name, "servers", servers)
			}
			return ctx.Err()
		case <-time.After(watchEvery):
		}
	}
	return ctx.Err()
}

// servers are the addresses of the name servers of the zone that a name is in.
func (w *Watch) servers(ctx context.Context, name string) (addresses []string) {
	r := w.Resolver
	if r == nil {
		r = net.DefaultResolver
	}
	for zone := strings.TrimSuffix(name, "."); strings.Contains(zone, "."); _, zone, _ = strings.Cut(zone, ".") {
		ask, cancel := context.WithTimeout(ctx, askTime)
		found, err := r.LookupNS(ask, zone+".")
		cancel()
		if err != nil || len(found) == 0 {
			continue
		}
		for _, ns := range found[:min(len(found), maxServers)] {
			ask, cancel := context.WithTimeout(ctx, askTime)
			hosts, err := r.LookupHost(ask, ns.Host)
			cancel()
			if err == nil && len(hosts) > 0 {
				addresses = append(addresses, net.JoinHostPort(hosts[0], cmp.Or(w.Port, "53")))
			}
		}
		return addresses
	}
	return nil
}

// shows reports whether a name server has the record, or cannot be asked from here at all.
func (w *Watch) shows(ctx context.Context, address, name, value string) bool {
	refused := false
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: askTime}).DialContext(ctx, network, address)
		refused = refused || err != nil
		return c, err
	}}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	texts, err := r.LookupTXT(ask, strings.TrimSuffix(name, ".")+".")
	return err == nil && slices.Contains(texts, value) || refused
}
