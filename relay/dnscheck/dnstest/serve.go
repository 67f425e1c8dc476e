package dnstest

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

// serve answers one question as one of the servers.
func (w *World) serve(server string, out dns.ResponseWriter, m *dns.Msg) {
	w.mu.Lock()
	w.asked++
	v := w.data[server]
	w.mu.Unlock()
	if len(m.Question) != 1 {
		return
	}
	q := m.Question[0]
	name := dns.CanonicalName(q.Name)
	_, overTCP := out.RemoteAddr().(*net.TCPAddr)
	switch {
	case v.is("silent", name):
		return
	case v.is("truncate", name) && overTCP:
		out.Close()
		return
	case v.is("garbage", name):
		reply := new(dns.Msg)
		reply.SetReply(m)
		reply.Question[0].Name = "other.example."
		out.WriteMsg(reply)
		return
	}
	reply := new(dns.Msg)
	reply.SetReply(m)
	if rcode := v.fault(name); rcode != dns.RcodeSuccess {
		reply.Rcode = rcode
	} else if server == "resolver" {
		v.resolve(reply, name, q.Qtype)
		reply.RecursionAvailable = true
		reply.Authoritative = v.is("authoritative", name)
	} else {
		v.speak(reply, name, q.Qtype, addresses[server])
		reply.Authoritative = reply.Authoritative && !v.is("noaa", name)
	}
	if !overTCP && (v.is("truncate", name) || v.is("cut", name)) {
		reply.Answer, reply.Truncated = nil, true
	}
	if !overTCP {
		size := dns.MinMsgSize
		if opt := m.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		reply.Truncate(size)
	}
	out.WriteMsg(reply)
}

func (v *view) fault(name string) int {
	for what, rcode := range map[string]int{"servfail": dns.RcodeServerFailure, "refused": dns.RcodeRefused,
		"nxdomain": dns.RcodeNameError, "lame": dns.RcodeRefused} {
		if v.is(what, name) {
			return rcode
		}
	}
	return dns.RcodeSuccess
}

// resolve answers with all that leads to the records, as a resolver does; SERVFAIL where CNAMEs do not end.
func (v *view) resolve(reply *dns.Msg, name string, qtype uint16) {
	for range 12 {
		next := v.step(reply, name, qtype)
		if next == "" {
			return
		}
		name = next
	}
	reply.Answer, reply.Rcode = nil, dns.RcodeServerFailure
}

// speak answers as a name server: for its zones alone, and CNAMEs only as far as the zone goes.
func (v *view) speak(reply *dns.Msg, name string, qtype uint16, address string) {
	apex := v.zone(name)
	if !v.serves(apex, address) {
		v.refer(reply, apex, address)
		return
	}
	reply.Authoritative = true
	for range 12 {
		next := v.step(reply, name, qtype)
		if next == "" || v.zone(next) != apex {
			return
		}
		name = next
	}
}

// refer points to the servers of a zone, where the server has the zone above it; others refuse.
func (v *view) refer(reply *dns.Msg, apex, address string) {
	_, parent, _ := strings.Cut(apex, ".")
	if !v.serves(v.zone(parent), address) {
		reply.Rcode = dns.RcodeRefused
		return
	}
	for _, rr := range v.records[apex] {
		if rr.Header().Rrtype == dns.TypeNS {
			reply.Ns = append(reply.Ns, rr)
		}
	}
}

// step adds the records of one name, and returns where a CNAME leads.
func (v *view) step(reply *dns.Msg, name string, qtype uint16) (next string) {
	found := false
	for _, rr := range v.records[name] {
		cname, isCNAME := rr.(*dns.CNAME)
		if rr.Header().Rrtype == qtype || isCNAME {
			reply.Answer = append(reply.Answer, rr)
			found = true
		}
		if isCNAME && qtype != dns.TypeCNAME {
			next = dns.CanonicalName(cname.Target)
		}
	}
	if found {
		return next
	}
	if !v.exists(name) {
		reply.Rcode = dns.RcodeNameError
	}
	for _, rr := range v.records[v.zone(name)] {
		if rr.Header().Rrtype == dns.TypeSOA {
			reply.Ns = append(reply.Ns, rr)
		}
	}
	return ""
}

// exists reports whether there is a name, or one below it.
func (v *view) exists(name string) bool {
	for other := range v.records {
		if other == name || strings.HasSuffix(other, "."+name) {
			return true
		}
	}
	return false
}

// zone returns the apex of the zone of a name, "" for none.
func (v *view) zone(name string) string {
	for at := name; at != "" && at != "."; _, at, _ = strings.Cut(at, ".") {
		for _, rr := range v.records[at] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return at
			}
		}
	}
	return ""
}

// serves reports whether the server at an address is named for a zone.
func (v *view) serves(apex, address string) bool {
	for _, rr := range v.records[apex] {
		ns, ok := rr.(*dns.NS)
		if !ok {
			continue
		}
		for _, host := range v.records[dns.CanonicalName(ns.Ns)] {
			if a, ok := host.(*dns.A); ok && a.A.String() == address {
				return true
			}
		}
	}
	return false
}
