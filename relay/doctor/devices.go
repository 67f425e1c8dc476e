package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postern/relay/config"
	"postern/relay/finding"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// deviceExam looks at listeners for old devices: what is weaker there than it need be.
type deviceExam struct{ *exam }

// unusedAfter is how long nobody must have used old TLS before the doctor advises to switch it off.
const unusedAfter = 30 * 24 * time.Hour

// devices says which listeners for old devices let in more than they need to.
func (x deviceExam) devices(ctx context.Context) (list []finding.Finding) {
	if !x.c.Appliances() {
		return nil
	}
	s, err := x.openStore(ctx)
	if err != nil {
		return nil // store says so
	}
	if s != nil {
		defer s.Close()
		list = append(list, x.learning(ctx, s)...)
	}
	for i := range x.c.Listeners {
		l := &x.c.Listeners[i]
		if !l.IsAppliance() {
			continue
		}
		list = append(list, oneForMany(l)...)
		if s != nil && l.MinVersion.IsOld() && l.TLS != config.NoTLS {
			list = append(list, x.oldTLS(ctx, s, l)...)
		}
	}
	if len(list) == 0 {
		list = append(list, fine(codeDeviceOK, "devices", "The listeners for old devices let in no more than they "+
			"must."))
	}
	return list
}

// learning tells of networks whose clients need no login for now.
func (x deviceExam) learning(ctx context.Context, s *relaystore.Store) (list []finding.Finding) {
	known, err := s.KnownDevices(ctx)
	if err != nil {
		return nil
	}
	for _, l := range known.Learnings {
		if !x.now.Before(l.Until) {
			continue
		}
		list = append(list, found(codeDeviceLearning, finding.Advice, l.Network.String(),
			fmt.Sprintf("Devices of %s may send to listener %s without login until %s.", l.Network, said(l.Listener),
				l.Until.Local().Format("2006-01-02 15:04")),
			"What they send is held and goes to nobody, but it takes room.",
			"postern device list shows who was seen. To end it now: postern device learn --stop"))
	}
	return list
}

// manyAddresses is the size of a network from which on one account for all of it is too much.
const manyAddresses = 8 // host bits

// oneForMany tells of a network every machine of which is one account.
func oneForMany(l *config.Listener) (list []finding.Finding) {
	for _, n := range l.Networks {
		if l.Auth != config.AuthNetwork || n.Addr().BitLen()-n.Bits() <= manyAddresses {
			continue
		}
		list = append(list, found(codeDeviceNetworkWide, finding.Advice, l.Name+" "+n.String(),
			fmt.Sprintf("Every machine in %s may send as %s without a login.", n, said(l.Login)),
			"One infected computer there sends in the name of all devices.",
			`Write the devices' own addresses in networks, or auth = "required" and let each be learned: `+
				"postern device learn"))
	}
	return list
}

// oldTLS tells of old TLS that nobody used for a month.
func (x deviceExam) oldTLS(ctx context.Context, s *relaystore.Store, l *config.Listener) []finding.Finding {
	events, err := s.Events(ctx, trace.Query{Kinds: []trace.Kind{trace.Accepted, trace.AuthFail},
		Since: x.now.Add(-unusedAfter), Limit: maxEvents})
	if err != nil || len(events) == maxEvents || len(events) == 0 { // or nothing can be said
		return nil
	}
	if slices.ContainsFunc(events, func(e trace.Event) bool {
		return e.Listener == l.Name && (e.TLS == "TLS 1.0" || e.TLS == "TLS 1.1")
	}) {
		return nil
	}
	return []finding.Finding{found(codeDeviceOldUnused, finding.Advice, l.Name,
		fmt.Sprintf("Listener %s takes TLS %s, which nobody used for 30 days.", l.Name, l.MinVersion),
		"Who can listen between a device and the relay may read its password.",
		`Write min_version = "1.2" there, as soon as no device needs more.`)}
}
