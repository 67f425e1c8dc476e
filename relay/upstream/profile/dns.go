package profile

import (
	"path"
	"slices"
	"strings"
)

// What a provider does to the reverse-path, by whose domain SPF is judged.
const (
	PathKept     = "kept"
	PathReplaced = "replaced" // by one of the provider's, or of a subdomain set up there
	PathUnknown  = "unknown"
)

// As whom a provider signs itself.
const (
	SignsDomain   = "domain"   // as the sender's, once it is set up there
	SignsProvider = "provider" // as itself alone
	SignsNot      = "no"
	SignsUnknown  = "unknown"
)

// DNS is what a provider wants in the DNS of a sender's domain, and what receivers find there.
type DNS struct {
	// Include of the domain's SPF record; empty where it is not known, or differs between customers.
	Include    string `toml:"spf_include" json:"spf_include,omitempty"`
	ReturnPath string `toml:"return_path" json:"return_path"`
	Signs      string `toml:"signs" json:"signs"`
	// Selectors of its DKIM records: "name", "name target" of a CNAME with {domain} in it, or "name ?" where that is
	// what most customers have and others chose another.
	Selectors []string `toml:"selectors" json:"selectors,omitempty"`
	// OwnDomains are the provider's, * for any text: customers with such addresses publish nothing.
	OwnDomains []string `toml:"own_domains" json:"own_domains,omitempty"`
	// ByAddress: the provider judges mail by the address that it comes from, ours.
	ByAddress bool `toml:"by_address" json:"by_address,omitempty"`
	// Sources are the pages that say so.
	Sources []string `toml:"sources" json:"sources,omitempty"`
}

// Selector is a DKIM record that a provider wants.
type Selector struct {
	Name   string // before ._domainkey
	Target string // of its CNAME, "" where the provider shows it to the customer alone
	Usual  bool   // customers may have chosen another name
}

// SelectorsFor returns the DKIM records for a domain.
func (d *DNS) SelectorsFor(domain string) []Selector {
	var list []Selector
	for _, text := range d.Selectors {
		name, target, _ := strings.Cut(text, " ")
		s := Selector{Name: name, Usual: target == "?"}
		if !s.Usual {
			s.Target = strings.ReplaceAll(target, "{domain}", domain)
		}
		list = append(list, s)
	}
	return list
}

// Owns reports whether a domain is the provider's own.
func (d *DNS) Owns(domain string) bool {
	return slices.ContainsFunc(d.OwnDomains, func(pattern string) bool {
		matched, err := path.Match(pattern, domain)
		return err == nil && matched
	})
}

func (d *DNS) complete() {
	fill(&d.ReturnPath, PathUnknown)
	fill(&d.Signs, SignsUnknown)
}

// rows say it to people.
func (d *DNS) rows(row func(name, value string)) {
	row("SPF include", d.Include)
	row("reverse-path", d.ReturnPath)
	row("signs as", d.Signs)
	row("its DKIM records", strings.Join(d.Selectors, ", "))
	row("its own domains", strings.Join(d.OwnDomains, ", "))
	if d.ByAddress {
		row("judges by", "our address")
	}
}
