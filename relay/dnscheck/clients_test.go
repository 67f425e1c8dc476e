package dnscheck

import (
	"slices"
	"strings"
	"testing"
)

// wanted are the records by which mail programs find their settings.
func wanted(o *Options) {
	o.ForClients = []Record{
		{Name: "_submissions._tcp.example.com", Type: "SRV", Value: "0 1 465 relay.example.com"},
		{Name: "autoconfig.example.com", Type: "CNAME", Value: "relay.example.com"},
		{Name: "_ua-auto-config.example.com", Type: "TXT", Value: "v=UAAC1; a=sha256; d=AAbb"},
	}
}

var wantedZone = []string{"_submissions._tcp.example.com 300 SRV 0 1 465 relay.example.com.",
	"autoconfig.example.com 300 CNAME relay.example.com.", "relay.example.com 300 A 192.0.2.7",
	txt("_ua-auto-config.example.com", "v=UAAC1; a=sha256; d=AAbb")}

var clientCases = []broken{
	{name: "not published", options: wanted, want: "clients-missing", says: "_submissions._tcp.example.com",
		verdict: ByDKIM},
	{name: "an old digest", options: wanted, changes: append(slices.Clone(wantedZone),
		txt("_ua-auto-config.example.com", "v=UAAC1; a=sha256; d=aabb")), want: "clients-differ",
		says: "_ua-auto-config.example.com", verdict: ByDKIM},
	{name: "leads elsewhere", options: wanted, changes: append(slices.Clone(wantedZone),
		"autoconfig.example.com 300 CNAME provider.example."), want: "clients-differ", says: "autoconfig.example.com",
		verdict: ByDKIM},
	{name: "control characters", options: wanted, changes: append(slices.Clone(wantedZone),
		txt("_ua-auto-config.example.com", "v=UAAC1; d=\x01")), want: "clients-differ",
		says: "_ua-auto-config.example.com", verdict: ByDKIM},
}

func TestRecordsForClients(t *testing.T) {
	for name, changes := range map[string][]string{
		"as wanted": wantedZone,
		"beside others": append(slices.Clone(wantedZone),
			"+_submissions._tcp.example.com 300 SRV 5 1 465 other.example.com.",
			"+"+txt("_ua-auto-config.example.com", "v=UAAC1; a=sha256; d=older")),
		"an address instead of a CNAME": append(slices.Clone(wantedZone), "-autoconfig.example.com 300 CNAME",
			"autoconfig.example.com 300 A 192.0.2.7"),
	} {
		t.Run(name, func(t *testing.T) {
			r := runBroken(t, options(), broken{options: wanted, changes: changes})
			if got := bad(r); len(got) > 0 || len(r.Records) > 0 {
				t.Errorf("%v\n%s", got, show(r))
			}
		})
	}
	gone := []string{"!resolver nxdomain example.com", "!ns1 nxdomain example.com", "!ns2 nxdomain example.com"}
	if r := runBroken(t, options(), broken{options: wanted, changes: gone}); len(r.Records) > 0 {
		t.Errorf("records of a domain that does not exist:\n%s", show(r))
	}
	r := runBroken(t, options(), broken{options: wanted})
	text := show(r)
	for _, line := range []string{"_submissions._tcp.example.com. IN SRV 0 1 465 relay.example.com.",
		"autoconfig.example.com. IN CNAME relay.example.com.",
		`_ua-auto-config.example.com. IN TXT "v=UAAC1; a=sha256; d=AAbb"`} {
		if !strings.Contains(text, "publish "+line) {
			t.Errorf("%s is not to be published:\n%s", line, text)
		}
	}
}
