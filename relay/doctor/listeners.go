package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"postern/certs"
	"postern/internal/errno"
	"postern/internal/howto"
	"postern/relay/config"
	"postern/relay/finding"
)

// listenerExam looks at listeners.
type listenerExam struct{ *exam }

// Bounds of the names that are tried, and of the addresses of each.
const (
	maxNames     = 8
	maxAddresses = 4
)

// listeners connects to each listener as a mail program would, at its address and by the names that clients use.
func (x listenerExam) listeners(ctx context.Context) (list []finding.Finding) {
	if x.report == nil {
		return []finding.Finding{skipped("listeners", "The listeners were not tried, since Postern does not answer.",
			"Start Postern, and run postern doctor again.")}
	}
	infos, _, _ := x.presented(ctx) // its error is certificates' to tell
	places, list := x.names(ctx)
	for i := range x.c.Listeners {
		l := &x.c.Listeners[i]
		host, port, err := net.SplitHostPort(x.addressOf(l))
		if err != nil {
			continue // config says so
		}
		if addr, err := netip.ParseAddr(host); err != nil || addr.IsUnspecified() {
			host = "127.0.0.1" // what listens on :: takes IPv4 too
		}
		address := net.JoinHostPort(host, port)
		v := visitListener(ctx, address, l)
		list = append(list, x.verdict(l, address, v, infos)...)
		if v.stage != "connect" {
			list = append(list, x.byName(ctx, l, places, port, infos)...)
		}
	}
	return list
}

// addressOf is where a listener accepts, as the daemon says, which knows the port of ":0".
func (x listenerExam) addressOf(l *config.Listener) string {
	for _, r := range x.report.Listeners {
		if r.Name == l.Name {
			return r.Address
		}
	}
	return l.Address
}

// verdict says what a visit at the listener's own address comes to.
func (x listenerExam) verdict(l *config.Listener, address string, v visit, infos []certs.Info) []finding.Finding {
	subject := l.Name + " on " + address
	switch {
	case v.outside:
		return []finding.Finding{fine(codeListenerOK, subject, "The port is open. The networks of this listener leave "+
			"this machine out, so no more was tried.")}
	case v.stage == "connect":
		return []finding.Finding{found(codeListenerClosed, finding.Danger, subject,
			"Nobody can connect to listener "+l.Name+": "+sentence(reason(v.err)),
			"Mail programs and devices that send there get no connection.",
			"See whether Postern listens there: "+howto.Listens(portOf(address))+"\nA change of the address of a "+
				"listener may need a restart: "+howto.Restart)}
	case v.stage == "tls" || v.stage == "starttls":
		return []finding.Finding{found(codeListenerTLS, finding.Danger, subject,
			"No TLS connection to listener "+l.Name+" is possible: "+sentence(reason(v.err)),
			"Mail programs and devices cannot log in there.",
			"Run postern check, which looks at the certificate and its key, and look at the log: "+
				howto.Log)}
	case v.stage != "":
		return []finding.Finding{found(codeListenerRefuses, finding.Danger, subject,
			"Listener "+l.Name+" takes connections, but does not serve them: "+sentence(reason(v.err)),
			"Mail programs and devices that send there are refused.",
			"The reply says why. 421 means that there are too many connections: postern status counts them, and "+
				"max_connections in [[listener]] bounds them.")}
	}
	list := x.offers(l, subject, v)
	if f, bad := foreign(subject, v, infos); bad {
		list = append(list, f)
	}
	if len(list) == 0 {
		list = append(list, fine(codeListenerOK, subject, "It answers as it should."))
	}
	return list
}

// offers says what a listener offers that it should not, and the other way round.
func (x listenerExam) offers(l *config.Listener, subject string, v visit) (list []finding.Finding) {
	if (l.TLS == config.StartTLS || l.TLS == config.Auto) && !v.startTLS {
		return append(list, found(codeListenerNoStartTLS, finding.Danger, subject,
			"Listener "+l.Name+" does not offer STARTTLS to this machine.",
			"Mail programs cannot log in: something between them and Postern, such as a virus scanner or a "+
				"firewall with "+
				"mail inspection, takes the offer away, or another program answers there.",
			"Switch off mail inspection for this port, or use port 465 with TLS from the first byte.\nSee "+
				"who listens: "+
				"ss -ltnp 'sport = :"+portOf(subject)+"'"))
	}
	if v.authClear {
		list = append(list, found(codeListenerAuthClear, finding.Fault, subject,
			"Logging in is offered there before the connection is encrypted.",
			"Passwords would cross the network readable. Postern never offers this with tls = \"starttls\": another "+
				"program answers there.", "See who listens: ss -ltnp 'sport = :"+portOf(subject)+"'"))
	}
	if l.Auth == config.AuthRequired && !v.auth && !v.unplaced {
		list = append(list, found(codeListenerNoAuth, finding.Danger, subject,
			"Listener "+l.Name+" does not offer to log in.", "Nobody can send there.",
			"Look at mechanisms in [auth] of "+x.Path+", and whether Postern runs with this file: postern status"))
	}
	return list
}

// foreign says that a certificate is none of ours.
func foreign(subject string, v visit, infos []certs.Info) (finding.Finding, bool) {
	if v.leaf == nil || len(infos) == 0 || slices.ContainsFunc(infos, func(i certs.Info) bool {
		return len(i.Chain) > 0 && i.Chain[0].Equal(v.leaf)
	}) {
		return finding.Finding{}, false
	}
	return found(codeListenerCertificate, finding.Fault, subject,
		fmt.Sprintf("The certificate that is shown there (of "+
			"%s, until %s) is not the one on the disk.", said(v.leaf.Subject.String()),
			v.leaf.NotAfter.UTC().Format("2006-01-02")),
		"Either Postern has not taken a new certificate over, or another server or a virus scanner answers "+
			"in its place.",
		"Look in the log why a new certificate was refused: "+howto.FindInLog("certificate")+
			"\nIf there is nothing, restart Postern."), true
}

// place is a name that clients use, with the addresses that it has for this machine.
type place struct {
	name      string
	addresses []netip.Addr
	elsewhere bool // none is this machine's
}

// names resolves what clients connect to: hostname and the names of the self-signed certificate.
func (x listenerExam) names(ctx context.Context) (places []place, list []finding.Finding) {
	own, err := x.machine.own()
	if err != nil {
		own = nil
	}
	names := append([]string{x.c.Hostname}, x.c.TLS.SelfSignedNames...)
	for _, name := range names[:min(len(names), maxNames)] {
		if _, err := netip.ParseAddr(name); err == nil || name == "" ||
			slices.ContainsFunc(places, func(p place) bool { return p.name == name }) {
			continue
		}
		p := place{name: name}
		addresses, err := x.machine.lookup(ctx, name)
		if err != nil || len(addresses) == 0 {
			list = append(list, nameUnknown(name, err))
			continue
		}
		for _, a := range addresses[:min(len(addresses), maxAddresses)] {
			p.addresses = append(p.addresses, a.Unmap())
		}
		p.elsewhere = len(own) > 0 && !slices.ContainsFunc(p.addresses, func(a netip.Addr) bool {
			return a.IsLoopback() || slices.Contains(own, a)
		})
		if !p.elsewhere {
			list = append(list, fine(codeNameOK, name, "%s leads to this machine.", name))
		} else {
			list = append(list, found(codeNameElsewhere, finding.Advice, name, fmt.Sprintf("%s leads to %s, and this "+
				"machine has no such address.", name, joined(p.addresses)),
				"It is right where a router or a load balancer passes connections on to this machine. Otherwise mail "+
					"programs go to another one.",
				"If nothing passes them on, let the name lead to an address of this machine: "+joined(outward(own))))
		}
		places = append(places, p)
	}
	return places, list
}

func nameUnknown(name string, err error) finding.Finding {
	why := "it has no address"
	if err != nil {
		why = reason(err)
	}
	return found(codeNameUnknown, finding.Fault, name, "This machine cannot find out the address of "+name+": "+
		sentence(why), "Mail programs and devices that are set to this name cannot connect, unless their own "+
		"name server "+
		"knows it.", "Add an A record for "+name+
		" with the address of this machine at whoever keeps your domain, or in "+
		"the name server of your office.")
}

// byName visits a listener by the names that clients use.
func (x listenerExam) byName(ctx context.Context, l *config.Listener, places []place, port string,
	infos []certs.Info) (list []finding.Finding) {
	host, _, _ := net.SplitHostPort(l.Address)
	if bound, err := netip.ParseAddr(host); err == nil && bound.IsLoopback() {
		return nil // for programs of this machine
	}
	for _, p := range places {
		subject := l.Name + " at " + net.JoinHostPort(p.name, port)
		v := visit{}
		for _, a := range p.addresses {
			if v = visitListener(ctx, net.JoinHostPort(a.String(), port), l); v.stage != "" {
				break
			}
		}
		if v.stage != "" {
			list = append(list, x.notByName(subject, p, v))
			continue
		}
		if f, bad := foreign(subject, v, infos); bad && !v.outside {
			list = append(list, f)
			continue
		}
		list = append(list, fine(codeListenerOK, subject, "It can be reached by name."))
	}
	return list
}

func (x listenerExam) notByName(subject string, p place, v visit) finding.Finding {
	w, fix := finding.Fault,
		"Let the listener accept there (address in [[listener]] of "+x.Path+"), and open the port in "+
			"the firewall of this machine."
	if p.elsewhere {
		w, fix = finding.Advice,
			"Try it from another computer. If it fails there too, look at what passes connections on "+
				"to this machine: a router, a load balancer, a firewall. Many routers do not let their own network in "+
				"by the outer address."
	}
	return found(codeListenerByName, w, subject, fmt.Sprintf("The listener works, but not at %s (%s): %s", p.name,
		joined(p.addresses), sentence(reason(v.err))),
		"Mail programs and devices that are set to this name may not be able to connect.", fix)
}

// outward are addresses that others can use.
func outward(own []netip.Addr) (all []netip.Addr) {
	for _, a := range own {
		if a.IsGlobalUnicast() {
			all = append(all, a)
		}
	}
	return all[:min(len(all), maxAddresses)]
}

func joined(addresses []netip.Addr) string {
	var texts []string
	for _, a := range addresses {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// reason says in plain words what a connection failed with.
func reason(err error) string {
	var lookup *net.DNSError
	switch {
	case errors.Is(err, errno.Refused):
		return "the connection is refused (nothing listens there, or a firewall forbids it)"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errno.TimedOut):
		return "there is no answer (a firewall drops the connection, or the machine is off)"
	case errors.Is(err, errno.HostUnreachable), errors.Is(err, errno.NetworkUnreachable):
		return "there is no way there (" + said(err.Error()) + ")"
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "no name server knows it"
	}
	return said(err.Error())
}
