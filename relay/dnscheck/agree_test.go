package dnscheck

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	spf "blitiri.com.ar/go/spf"
	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// book is DNS for the walker and for the SPF library: records of names, and hosts that exist.
type book map[string]string

func (b book) LookupTXT(_ context.Context, name string) ([]string, error) {
	if text, ok := b[strings.TrimSuffix(name, ".")]; ok {
		return []string{text}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func (b book) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	if strings.HasPrefix(name, "host") {
		return []*net.MX{{Host: name}}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func (b book) LookupIPAddr(_ context.Context, host string) ([]net.IPAddr, error) {
	if strings.HasPrefix(host, "host") {
		return []net.IPAddr{{IP: net.IPv4(192, 0, 2, 1)}}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func (b book) LookupAddr(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{IsNotFound: true}
}

// walk is the walker's view of the same book.
func (b book) walk(t *rapid.T, domain string) *spfWalk {
	w := &spfWalk{
		fetch: func(domain string) ([]string, error) {
			if text, ok := b[domain]; ok {
				return []string{text}, nil
			}
			return nil, &Error{Kind: NXDomain}
		},
		resolve: func(name string, qtype uint16) (Answer, error) {
			switch {
			case !strings.HasPrefix(name, "host"):
				return Answer{}, &Error{Kind: NXDomain}
			case qtype == dns.TypeMX:
				return Answer{Records: []dns.RR{&dns.MX{Mx: name}}}, nil
			}
			return Answer{Records: []dns.RR{&dns.A{A: net.IPv4(192, 0, 2, 1)}}}, nil
		},
	}
	r, err := parseSPF(b[domain])
	if err != nil {
		t.Fatal(err)
	}
	w.walk(domain, r, nil)
	return w
}

// For an address that nothing lets through no receiver stops early, so the worst case is what happens: the library
// breaks
// off exactly where the walker counts more than is allowed.
func TestWalkerAgreesWithTheLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := book{}
		names := rapid.IntRange(1, 4).Draw(t, "records")
		for i := range names {
			terms := []string{spfVersion}
			for range rapid.IntRange(0, 6).Draw(t, "terms") {
				kinds := []string{"a:host%d.example", "a:host%d.example", "mx:host%d.example", "ip4:203.0.113.%d"}
				if i < names-1 {
					kinds = append(kinds, "include:n%d.example", "include:n%d.example")
				}
				if rapid.IntRange(0, 3).Draw(t, "void") == 0 {
					kinds = []string{"a:gone%d.example"}
				}
				kind := rapid.SampledFrom(kinds).Draw(t, "kind")
				terms = append(terms, fmt.Sprintf(kind, rapid.IntRange(i+1, max(i+1, names-1)).Draw(t, "of")))
			}
			if rapid.Bool().Draw(t, "redirect") && i < names-1 {
				terms = append(terms, fmt.Sprintf("redirect=n%d.example", i+1))
			} else {
				terms = append(terms, "-all")
			}
			b[fmt.Sprintf("n%d.example", i)] = strings.Join(terms, " ")
		}
		w := b.walk(t, "n0.example")
		breaks := w.lookups > spfLookups || len(w.void) > spfVoid ||
			slices.ContainsFunc(w.faults, func(f spfFault) bool { return f.code != "spf-unavailable" })
		result, err := spf.CheckHostWithSender(net.IPv4(198, 51, 100, 1), "n0.example", "a@n0.example",
			spf.WithResolver(b), spf.WithContext(context.Background()))
		if (result == spf.PermError) != breaks {
			t.Fatalf("%v: the library says %s (%v), the walker %d look-ups, void %v, %v", b, result, err, w.lookups,
				w.void,
				w.faults)
		}
	})
}
