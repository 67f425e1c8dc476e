// Package dnstest is DNS for tests: a resolver and the name servers of all zones, on loopback, from a small text. Each
// of them can be broken in the ways in which real ones are.
//
// The text has records as master files write them (RFC 1035 §5.1), with whole names and without a dot at the end of the
// owner, and lines that break things:
//
//	!resolver servfail NAME      the server answers SERVFAIL; also refused, nxdomain, garbage
//	!ns1 silent NAME             it does not answer, see Silent
//	!resolver truncate NAME      answers by UDP are cut, and TCP is closed
//	!ns1 cut NAME                answers by UDP are cut, and TCP works
//	!ns2 lame NAME               it does not know the zone; also noaa: it answers without authority
//	!resolver has RECORD         instead of all records of that name and type
//	!resolver lacks NAME TYPE    it has none of them
//	!resolver authoritative NAME it says that it has the zone itself
//
// NAME may be * for all. The servers are resolver, ns1 and ns2.
//
// Failure semantics: what cannot be read or started fails the test.
package dnstest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// addresses are those of the servers. Linux answers on all of 127.0.0.0/8.
var addresses = map[string]string{"resolver": "127.0.0.1", "ns1": "127.0.0.2", "ns2": "127.0.0.3"}

// Zone returns the records that a zone needs: SOA, and NS with ns1 and ns2.
func Zone(apex string) string {
	return fmt.Sprintf("%[1]s 300 SOA ns1.%[1]s. admin.%[1]s. 1 7200 600 86400 300\n"+
		"%[1]s 300 NS ns1.%[1]s.\n%[1]s 300 NS ns2.%[1]s.\nns1.%[1]s 300 A 127.0.0.2\nns2.%[1]s 300 A 127.0.0.3\n",
		apex)
}

// World is the running servers.
type World struct {
	Resolver netip.AddrPort
	Port     uint16 // of all servers

	mu    sync.Mutex // guards what follows
	data  map[string]*view
	asked int
}

// view is what one server has and how it is broken.
type view struct {
	records map[string][]dns.RR        // by name, lower case, with a dot
	broken  map[string]map[string]bool // by what, the names; * for all
}

// Start runs a world until the test ends.
func Start(t testing.TB, text string) *World {
	t.Helper()
	w := &World{}
	if err := w.Set(text); err != nil {
		t.Fatal(err)
	}
	var sockets map[string]*sockets
	for range 100 { // another process may have the port on one of the addresses
		var err error
		if sockets, err = listen(); err == nil {
			break
		}
	}
	if sockets == nil {
		t.Fatal("no port is free on all of 127.0.0.1, 127.0.0.2 and 127.0.0.3")
	}
	for name, s := range sockets {
		handler := dns.HandlerFunc(func(out dns.ResponseWriter, m *dns.Msg) { w.serve(name, out, m) })
		for _, server := range []*dns.Server{{PacketConn: s.udp, Handler: handler}, {Listener: s.tcp,
			Handler: handler}} {
			started := make(chan struct{})
			ended := make(chan error, 1)
			server.NotifyStartedFunc = func() { close(started) }
			go func() { ended <- server.ActivateAndServe() }()
			<-started
			t.Cleanup(func() {
				server.Shutdown()
				<-ended
			})
		}
	}
	w.Port = uint16(sockets["resolver"].udp.LocalAddr().(*net.UDPAddr).Port)
	w.Resolver = netip.AddrPortFrom(netip.MustParseAddr(addresses["resolver"]), w.Port)
	return w
}

type sockets struct {
	udp net.PacketConn
	tcp net.Listener
}

func listen() (map[string]*sockets, error) {
	all := map[string]*sockets{}
	port := "0"
	for _, name := range []string{"resolver", "ns1", "ns2"} {
		s := &sockets{}
		var err error
		if s.tcp, err = net.Listen("tcp", net.JoinHostPort(addresses[name], port)); err == nil {
			_, port, _ = net.SplitHostPort(s.tcp.Addr().String())
			s.udp, err = net.ListenPacket("udp", net.JoinHostPort(addresses[name], port))
			all[name] = s
		}
		if err != nil {
			for _, s := range all {
				s.tcp.Close()
				if s.udp != nil {
					s.udp.Close()
				}
			}
			return nil, err
		}
	}
	return all, nil
}

// Asked returns how many questions all servers were asked.
func (w *World) Asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// Silent reports whether the server at an address does not answer about a name. Tests that must not wait for a timeout
// ask this instead of the network.
func (w *World) Silent(server, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	host, _, _ := net.SplitHostPort(server)
	for n, addr := range addresses {
		if addr == host {
			return w.data[n].is("silent", dns.CanonicalName(name))
		}
	}
	return false
}

// Set replaces what all servers have.
func (w *World) Set(text string) error {
	data := map[string]*view{}
	for name := range addresses {
		data[name] = &view{records: map[string][]dns.RR{}, broken: map[string]map[string]bool{}}
	}
	var directives []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if directive, ok := strings.CutPrefix(line, "!"); ok {
			directives = append(directives, directive)
			continue
		}
		rr, err := parse(line)
		if err != nil {
			return err
		}
		if rr == nil {
			continue
		}
		for _, v := range data {
			v.add(rr)
		}
	}
	for _, directive := range directives {
		if err := apply(data, directive); err != nil {
			return fmt.Errorf("!%s: %w", directive, err)
		}
	}
	w.mu.Lock()
	w.data = data
	w.mu.Unlock()
	return nil
}

// parse reads a record; nil for an empty line or a comment.
func parse(line string) (dns.RR, error) {
	if line == "" || strings.HasPrefix(line, ";") {
		return nil, nil
	}
	owner, rest, _ := strings.Cut(line, " ")
	rr, err := dns.NewRR(dns.Fqdn(owner) + " " + rest)
	if err == nil && rr == nil {
		err = fmt.Errorf("%q is no record", line)
	}
	return rr, err
}

func (v *view) add(rr dns.RR) {
	name := dns.CanonicalName(rr.Header().Name)
	v.records[name] = append(v.records[name], rr)
}

// drop removes the records of a name and type.
func (v *view) drop(name string, qtype uint16) {
	var left []dns.RR
	for _, rr := range v.records[name] {
		if rr.Header().Rrtype != qtype {
			left = append(left, rr)
		}
	}
	v.records[name] = left
	if len(left) == 0 {
		delete(v.records, name)
	}
}

func (v *view) is(what, name string) bool { return v.broken[what][name] || v.broken[what]["*"] }

func apply(data map[string]*view, directive string) error {
	server, rest, _ := strings.Cut(directive, " ")
	what, argument, _ := strings.Cut(rest, " ")
	v, ok := data[server]
	if !ok || argument == "" {
		return fmt.Errorf("write a server, what, and a name")
	}
	switch what {
	case "has":
		rr, err := parse(argument)
		if err != nil || rr == nil {
			return fmt.Errorf("no record: %w", err)
		}
		v.drop(dns.CanonicalName(rr.Header().Name), rr.Header().Rrtype)
		v.add(rr)
	case "lacks":
		name, qtype, _ := strings.Cut(argument, " ")
		if dns.StringToType[qtype] == 0 {
			return fmt.Errorf("%q is no type", qtype)
		}
		v.drop(dns.CanonicalName(name), dns.StringToType[qtype])
	case "servfail", "refused", "nxdomain", "garbage", "silent", "truncate", "cut", "lame", "noaa", "authoritative":
		if argument != "*" {
			argument = dns.CanonicalName(argument)
		}
		if v.broken[what] == nil {
			v.broken[what] = map[string]bool{}
		}
		v.broken[what][argument] = true
	default:
		return fmt.Errorf("%q is not known", what)
	}
	return nil
}
