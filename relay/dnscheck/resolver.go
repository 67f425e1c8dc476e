package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of what one check asks and reads.
const (
	defaultTimeout = 3 * time.Second // of one question to one server
	attempts       = 2               // of one server that does not answer, before it counts as down
	maxQuestions   = 300             // of one check, to all servers together
	maxChain       = 8               // CNAMEs in a row
	maxRecords     = 64              // of one answer that are looked at
	maxText        = 8192            // octets of one TXT record that are looked at
	maxServers     = 4               // of a zone that are asked, and of the system's resolvers
	udpSize        = 1232            // octets; what passes every path without fragments (DNS flag day 2020)
)

// Kind is why a question has no answer. A name without records of the type is an empty answer, not an error.
type Kind string

// The kinds.
const (
	NXDomain    Kind = "nxdomain"    // there is no such name
	ServFail    Kind = "servfail"    // the server failed: broken DNSSEC, or no server of the zone answers
	Refused     Kind = "refused"     // the server does not want to answer us
	Timeout     Kind = "timeout"     // it does not answer
	Truncated   Kind = "truncated"   // the answer is too long for UDP, and TCP does not work
	Lame        Kind = "lame"        // a server of the zone does not know the zone
	CNAMELoop   Kind = "cname-loop"  // the CNAMEs lead back to where they began
	CNAMELong   Kind = "cname-long"  // more CNAMEs in a row than anybody follows
	Dangling    Kind = "dangling"    // a CNAME leads to a name that does not exist
	Malformed   Kind = "malformed"   // not DNS, or the answer to another question
	Exhausted   Kind = "exhausted"   // the check has asked too much already
	Unreachable Kind = "unreachable" // there is no server, or no way to it
)

// Error is a question without an answer.
type Error struct {
	Kind   Kind
	Name   string   // that was asked for
	Type   string   // of records
	Server string   // the last one that was asked
	Chain  []string // of CNAMEs before it ended
	Err    error    // below it, or nil
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s %s: %s", e.Type, e.Name, e.Kind)
	if e.Server != "" {
		text += " from " + e.Server
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Timeout implements net.Error.
func (e *Error) Timeout() bool { return e.Kind == Timeout }

// Temporary implements net.Error: a receiver that meets this tries again later.
func (e *Error) Temporary() bool { return e.Kind != NXDomain && e.Kind != Dangling }

// kindOf returns the kind of an error of this package, "" for nil.
func kindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Unreachable
}

// Answer is what a server said.
type Answer struct {
	Records       []dns.RR // of the type that was asked for, at the end of Chain
	Chain         []string // names that CNAMEs led to, in order
	TTL           uint32   // seconds; the shortest of all
	Authoritative bool     // the server has the zone itself
	Server        string
	zone          string   // owner of the SOA in the authority section, "" without
	referral      []string // name servers of the zone below that the server points to
}

// Texts returns the TXT records, each with its strings joined.
func (a Answer) Texts() []string {
	var texts []string
	for _, rr := range a.Records {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, text(txt))
		}
	}
	return texts
}

// text joins the strings of a TXT record and takes miekg's escapes back, up to maxText octets.
func text(txt *dns.TXT) string {
	var b strings.Builder
	for _, s := range txt.Txt {
		b.WriteString(unescape(s))
	}
	if b.Len() > maxText {
		return b.String()[:maxText]
	}
	return b.String()
}

// unescape reads the form that master files have: \" and \\ and \DDD (RFC 1035 §5.1).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b = append(b, s[i])
		case i+3 < len(s) && isDigits(s[i+1:i+4]):
			b = append(b, byte(int(s[i+1]-'0')*100+int(s[i+2]-'0')*10+int(s[i+3]-'0')))
			i += 3
		default:
			b = append(b, s[i+1])
			i++
		}
	}
	return string(b)
}

func isDigits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// Resolver asks servers. It is safe for several goroutines; what it learns is kept for one check alone, see begin.
type Resolver struct {
	// Servers resolve names for us. Empty: those of /etc/resolv.conf.
	Servers []netip.AddrPort
	// AuthorityPort is where the servers of zones are asked; 0: 53. Tests set it, and servers on loopback are asked
	// only then.
	AuthorityPort uint16
	// Timeout of one question to one server; 0: 3 seconds.
	Timeout time.Duration

	exchange exchange // nil: the network
}

// exchange puts a question to a server, "udp" or "tcp", and waits for its answer.
type exchange func(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error)

// send is the exchange by the network.
func (r *Resolver) send(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	c := &dns.Client{Net: network, Timeout: timeout, UDPSize: udpSize}
	in, _, err := c.ExchangeContext(ctx, m, server.String())
	return in, err
}

func systemOf(file string) (*Resolver, error) {
	c, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("find the system's resolver: %w; name one with --resolver", err)
	}
	r := &Resolver{}
	for _, server := range c.Servers {
		addr, err := netip.ParseAddr(server)
		port := 53
		if _, scanErr := fmt.Sscan(c.Port, &port); err == nil && scanErr == nil && len(r.Servers) < maxServers {
			r.Servers = append(r.Servers, netip.AddrPortFrom(addr, uint16(port)))
		}
	}
	if len(r.Servers) == 0 {
		return nil, fmt.Errorf("%s names no resolver; name one with --resolver", file)
	}
	return r, nil
}

// session is one check's questions: what was answered, who is down, how much was asked.
type session struct {
	r *Resolver

	mu      sync.Mutex // guards what follows
	asked   int
	silent  map[string]int // by server and transport, questions without an answer
	answers map[question]result
	zones   map[string]zone // by name
}

type question struct {
	server string // "": those that resolve
	name   string
	qtype  uint16
}

type result struct {
	a   Answer
	err error
}

func (r *Resolver) begin() *session {
	return &session{r: r, silent: map[string]int{}, answers: map[question]result{}, zones: map[string]zone{}}
}

// remembered returns an answer of before, or asks for it.
func (s *session) remembered(q question, ask func() (Answer, error)) (Answer, error) {
	s.mu.Lock()
	known, ok := s.answers[q]
	s.mu.Unlock()
	if ok {
		return known.a, known.err
	}
	a, err := ask()
	s.mu.Lock()
	s.answers[q] = result{a, err}
	s.mu.Unlock()
	return a, err
}

// resolve asks the resolvers, in order until one answers, and follows CNAMEs.
func (s *session) resolve(ctx context.Context, name string, qtype uint16) (Answer, error) {
	name = canonical(name)
	return s.remembered(question{"", name, qtype}, func() (Answer, error) {
		seen := []string{name}
		var all Answer
		at := name
		for {
			a, err := s.resolveOnce(ctx, at, qtype)
			if len(seen) > 1 {
				a.TTL = min(a.TTL, all.TTL)
			}
			seen = append(seen, a.Chain...)
			a.Chain = seen[1:]
			all = a
			switch {
			case loops(seen):
				return all, &Error{Kind: CNAMELoop, Name: name, Type: dns.TypeToString[qtype], Chain: seen}
			case len(seen) > maxChain+1:
				return all, &Error{Kind: CNAMELong, Name: name, Type: dns.TypeToString[qtype], Chain: seen}
			case err != nil:
				return all, s.explain(ctx, name, qtype, seen, err)
			case len(a.Records) > 0 || seen[len(seen)-1] == at || qtype == dns.TypeCNAME:
				return all, nil
			}
			at = seen[len(seen)-1]
		}
	})
}

func loops(names []string) bool {
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return true
		}
	}
	return false
}

// explain finds out more about a failure: resolvers say SERVFAIL of CNAMEs that lead back, and NXDOMAIN of a name that
// exists and leads nowhere.
func (s *session) explain(ctx context.Context, name string, qtype uint16, seen []string, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	why := *e
	why.Name, why.Chain = name, seen[1:]
	if why.Kind == NXDomain && len(seen) > 1 {
		why.Kind = Dangling
	}
	if why.Kind != ServFail || qtype == dns.TypeCNAME {
		return &why
	}
	for at := seen[len(seen)-1]; len(seen) <= maxChain; at = seen[len(seen)-1] {
		a, err := s.resolveOnce(ctx, at, dns.TypeCNAME)
		if err != nil || len(a.Records) == 0 {
			return &why
		}
		seen = append(seen, canonical(a.Records[0].(*dns.CNAME).Target))
		if loops(seen) {
			why.Kind, why.Chain = CNAMELoop, seen
			return &why
		}
	}
	why.Kind, why.Chain = CNAMELong, seen
	return &why
}

// resolveOnce asks the resolvers one question. The first that says something definite is believed.
func (s *session) resolveOnce(ctx context.Context, name string, qtype uint16) (Answer, error) {
	if len(s.r.Servers) == 0 {
		return Answer{}, &Error{Kind: Unreachable, Name: name, Type: dns.TypeToString[qtype]}
	}
	var a Answer
	var err error
	for i, server := range s.r.Servers {
		if i == maxServers {
			break
		}
		a, err = s.ask(ctx, server, name, qtype, true)
		if k := kindOf(err); k == "" || k == NXDomain || k == Exhausted {
			return a, err
		}
	}
	return a, err
}

// ask puts a question to one server, again by TCP where the answer is too long for UDP.
func (s *session) ask(ctx context.Context, server netip.AddrPort, name string, qtype uint16, recurse bool) (Answer,
	error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.RecursionDesired = recurse
	m.SetEdns0(udpSize, false)
	in, err := s.exchange(ctx, "udp", server, m)
	if err == nil && in.Truncated {
		if in, err = s.exchange(ctx, "tcp", server, m); err != nil {
			return Answer{}, &Error{Kind: Truncated, Name: name, Type: dns.TypeToString[qtype],
				Server: server.String(), Err: err}
		}
	}
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			e = &Error{Kind: Malformed, Err: err}
		}
		e.Name, e.Type, e.Server = name, dns.TypeToString[qtype], server.String()
		return Answer{}, e
	}
	return readAnswer(in, name, qtype, server.String())
}

// exchange sends a question and waits. A server that was silent twice is not asked again in this session.
func (s *session) exchange(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	send := s.r.exchange
	if send == nil {
		send = s.r.send
	}
	key := network + " " + server.String()
	for {
		if err := s.mayAsk(ctx, key); err != nil {
			return nil, err
		}
		m.Id = dns.Id()
		in, err := send(ctx, network, server, m)
		switch {
		case err == nil && !answers(in, m):
			return nil, &Error{Kind: Malformed}
		case err == nil:
			s.mu.Lock()
			s.silent[key] = 0
			s.mu.Unlock()
			return in, nil
		case ctx.Err() != nil:
			return nil, &Error{Kind: Timeout, Err: ctx.Err()}
		}
		if timedOut, ok := errors.AsType[net.Error](err); !ok || !timedOut.Timeout() {
			return nil, &Error{Kind: networkKind(err), Err: err}
		}
		s.mu.Lock()
		s.silent[key]++
		s.mu.Unlock()
	}
}

func networkKind(err error) Kind {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return Unreachable
	}
	return Malformed
}

func (s *session) mayAsk(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return &Error{Kind: Timeout, Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent[key] >= attempts {
		return &Error{Kind: Timeout}
	}
	if s.asked++; s.asked > maxQuestions {
		return &Error{Kind: Exhausted}
	}
	return nil
}

// answers reports whether in is about the question of m.
func answers(in, m *dns.Msg) bool {
	if !in.Response || len(in.Question) > 1 {
		return false
	}
	return len(in.Question) == 0 || in.Question[0].Qtype == m.Question[0].Qtype &&
		strings.EqualFold(in.Question[0].Name, m.Question[0].Name)
}

// readAnswer picks from a message what was asked for, with the CNAMEs that lead there.
func readAnswer(in *dns.Msg, name string, qtype uint16, server string) (Answer, error) {
	a := Answer{Authoritative: in.Authoritative, Server: server, TTL: ^uint32(0)}
	at := name
	for _, rr := range in.Answer {
		h := rr.Header()
		if !strings.EqualFold(h.Name, at) || len(a.Records) >= maxRecords {
			continue
		}
		a.TTL = min(a.TTL, h.Ttl)
		if cname, ok := rr.(*dns.CNAME); ok && qtype != dns.TypeCNAME && len(a.Chain) <= maxChain {
			at = canonical(cname.Target)
			a.Chain = append(a.Chain, at)
		} else if h.Rrtype == qtype {
			a.Records = append(a.Records, rr)
		}
	}
	for _, rr := range in.Ns {
		switch rr := rr.(type) {
		case *dns.SOA:
			a.zone = canonical(rr.Hdr.Name)
		case *dns.NS:
			if len(a.referral) < maxServers && strings.EqualFold(rr.Hdr.Name, name) {
				a.referral = append(a.referral, canonical(rr.Ns))
			}
		}
	}
	fail := func(k Kind) (Answer, error) {
		return a, &Error{Kind: k, Name: name, Type: dns.TypeToString[qtype], Server: server, Chain: a.Chain}
	}
	switch in.Rcode {
	case dns.RcodeSuccess:
		return a, nil
	case dns.RcodeNameError:
		return fail(NXDomain)
	case dns.RcodeServerFailure:
		return fail(ServFail)
	case dns.RcodeFormatError, dns.RcodeNotImplemented:
		return fail(Malformed)
	}
	return fail(Refused)
}

func canonical(name string) string { return dns.CanonicalName(name) }

// bare is a name as people write it.
func bare(name string) string { return strings.TrimSuffix(name, ".") }
