package dnscheck

import (
	"strings"

	"github.com/miekg/dns"
)

// forClients says which records for mail programs are missing or another. Where DNS gives no answer it says nothing of
// them, since other findings do.
func (c *check) forClients() {
	var missing, differ []string
	for _, r := range c.o.ForClients {
		found, err := c.see.s.resolve(c.see.ctx, r.Name, dns.StringToType[r.Type])
		if k := kindOf(err); k != "" && k != NXDomain && k != Dangling {
			continue
		}
		values := valuesOf(r.Type, found)
		if has(values, r.Value) || r.Type == "CNAME" && len(values) == 0 && c.hasAddress(r.Name) {
			continue
		}
		r.Code = "clients-missing"
		if len(values) > 0 {
			r.Code, r.Replaces = "clients-differ", values
			differ = append(differ, r.Name)
		} else {
			missing = append(missing, r.Name)
		}
		c.tell.publish(r)
	}
	if len(missing) > 0 {
		c.tell.note("clients-missing", "Mail programs look for records that %s does not have: %s.", c.o.Domain,
			joined(missing))
	}
	if len(differ) > 0 {
		c.tell.note("clients-differ", "Records for mail programs are not as they should be: %s.", joined(differ))
	}
}

// hasAddress reports a name with addresses of its own, which stand in for a CNAME. Whose they are is not looked at: a
// web server may stand before.
func (c *check) hasAddress(name string) bool {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if a, err := c.see.s.resolve(c.see.ctx, name, kind); err == nil && len(a.Records) > 0 {
			return true
		}
	}
	return false
}

// valuesOf are the values of an answer, as Record has them.
func valuesOf(kind string, a Answer) []string {
	if kind == "CNAME" {
		if len(a.Chain) > 0 {
			return []string{bare(a.Chain[0])}
		}
		var values []string
		for _, rr := range a.Records {
			if c, ok := rr.(*dns.CNAME); ok {
				values = append(values, bare(c.Target))
			}
		}
		return values
	}
	if kind == "TXT" {
		return a.Texts()
	}
	var values []string
	for _, rr := range a.Records {
		values = append(values, bare(strings.Join(strings.Fields(strings.TrimPrefix(rr.String(), rr.Header().String())),
			" ")))
	}
	return values
}

func has(values []string, want string) bool {
	for _, v := range values {
		if strings.EqualFold(v, want) && (!strings.HasPrefix(want, "v=") || v == want) {
			return true
		}
	}
	return false
}
