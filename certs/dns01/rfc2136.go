package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// RFC2136 publishes records at a name server that takes updates, such as BIND, Knot, PowerDNS and Windows.
type RFC2136 struct {
	Server    string // host:port of the zone's primary
	Zone      string // "": found out by asking the server
	Key       string // name of the TSIG key
	Secret    string // base64
	Algorithm string // one of Algorithms
	Watch     *Watch // nil: the server alone is asked
}

// Algorithms are those of TSIG keys, RFC 8945 §6, but for those of SHA-1 and MD5.
var Algorithms = []string{"hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224"}

// How updates are made: their life in seconds is short, and each question to the server has this time.
const (
	recordTTL  = 60
	updateTime = 20 * time.Second
)

// Present publishes a record.
func (r *RFC2136) Present(ctx context.Context, name, value string) error {
	if err := r.update(ctx, name, value, (*dns.Msg).Insert); err != nil || r.Watch == nil {
		return err
	}
	return r.Watch.Await(ctx, name, value)
}

// CleanUp takes a record back.
func (r *RFC2136) CleanUp(ctx context.Context, name, value string) error {
	return r.update(ctx, name, value, (*dns.Msg).Remove)
}

// Settings tells settings apart.
func (r *RFC2136) Settings() string {
	return fmt.Sprint("rfc2136", r.Server, r.Zone, r.Key, r.Secret, r.Algorithm)
}

func (r *RFC2136) update(ctx context.Context, name, value string, change func(*dns.Msg, []dns.RR)) error {
	if err := check(name, value); err != nil {
		return err
	}
	zone, err := r.zoneOf(ctx, name)
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(zone)
	change(m, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL},
		Txt: []string{value},
	}})
	answer, err := r.ask(ctx, m)
	if err != nil {
		return fmt.Errorf("update zone %s at name server %s: %w", zone, r.Server, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("name server %s refuses the update of zone %s with %s%s", r.Server, zone,
			dns.RcodeToString[answer.Rcode], meaning(answer.Rcode))
	}
	return nil
}

// meaning says what to look at.
func meaning(rcode int) string {
	switch rcode {
	case dns.RcodeRefused:
		return ": it does not let this key change TXT records there, look at its update policy"
	case dns.RcodeNotZone:
		return ": the name is not in that zone"
	case dns.RcodeServerFailure:
		return ": look at its log; perhaps it cannot write the zone's file"
	}
	return ""
}

// zoneOf asks the server which of its zones a name is in.
func (r *RFC2136) zoneOf(ctx context.Context, name string) (string, error) {
	if r.Zone != "" {
		return dns.Fqdn(r.Zone), nil
	}
	refused := ""
	for zone := dns.Fqdn(name); strings.Count(zone, ".") > 1; _, zone, _ = strings.Cut(zone, ".") {
		answer, err := r.ask(ctx, new(dns.Msg).SetQuestion(zone, dns.TypeSOA))
		if err != nil {
			return "", fmt.Errorf("ask name server %s for the zone of %s: %w", r.Server, name, err)
		}
		if answer.Rcode != dns.RcodeSuccess && refused == "" {
			refused = " (it answers " + dns.RcodeToString[answer.Rcode] + ")"
		}
		for _, rr := range answer.Answer {
			if soa, ok := rr.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, zone) {
				return zone, nil
			}
		}
	}
	return "", fmt.Errorf("name server %s has no zone for %s%s: write zone in [tls.acme.rfc2136]", r.Server, name,
		refused)
}

// ask puts a question by TCP, signed if there is a key. The answer's signature is checked then.
func (r *RFC2136) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, updateTime)
	defer cancel()
	c := &dns.Client{Net: "tcp", Timeout: updateTime}
	if r.Key != "" {
		key := strings.ToLower(dns.Fqdn(r.Key))
		c.TsigSecret = map[string]string{key: r.Secret}
		m.SetTsig(key, dns.Fqdn(r.Algorithm), 300, time.Now().Unix())
	}
	answer, _, err := c.ExchangeContext(ctx, m, withPort(r.Server))
	if errors.Is(err, dns.ErrAuth) || errors.Is(err, dns.ErrSig) || errors.Is(err, dns.ErrTime) {
		err = fmt.Errorf("%w: look at key, secret, algorithm and both clocks, and whether the zone is there", err)
	}
	return answer, err
}

func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "53")
}
