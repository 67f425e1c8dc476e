package console

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"postern/operate"
	"postern/relay/doctor"
	"postern/relay/finding"
)

// outsideReasons are findings that nothing here mends, and why. What stands there has no link.
var outsideReasons = map[string]string{
	"daemon-down":               "the console runs within the daemon",
	"daemon-silent":             "as the one before",
	"daemon-forbidden":          "a shell's",
	"daemon-starting":           "it passes",
	"daemon-stopping":           "it passes",
	"restart-needed":            "the service manager restarts it",
	"listener-no-starttls":      "something between client and relay",
	"listener-auth-clear":       "another program's",
	"clock-wrong":               "the machine's clock",
	"clock-free":                "as the one before",
	"disk-read-only":            "the machine's disk",
	"disk-refuses":              "the machine's disk",
	"disk-inodes":               "the machine's disk",
	"data-dir-open":             "modes of files",
	"data-dir-files":            "modes of files",
	"file-owner":                "owners of files",
	"file-writable":             "modes of files",
	"leftovers":                 "files",
	"store-unreadable":          "a backup",
	"store-older":               "the service manager restarts it",
	"store-gone":                "a backup",
	"store-damaged":             "a backup",
	"store-log":                 "another process",
	"store-empty":               "sqlite3, while the relay is off",
	"store-server-fsync":        "the database server",
	"store-server-standby":      "the database server",
	"store-server-clear":        "the database server",
	"store-server-clock":        "the database server",
	"store-server-rights":       "the database server",
	"store-server-superuser":    "the database server",
	"examiner-hung":             "unknown",
	"examiner-failed":           "a fault of ours",
	"more-findings":             "those before it",
	"not-examined":              "the text says what",
	"dns-not-looked-at":         "resolv.conf",
	"dns-nxdomain":              "the registrar",
	"dns-servfail":              "the DNS provider",
	"dns-refused":               "the resolver",
	"dns-timeout":               "the resolver",
	"dns-truncated":             "a firewall",
	"dns-lame":                  "the registrar",
	"dns-lame-all":              "the registrar",
	"dns-server-silent":         "the registrar",
	"dns-authority-unreachable": "a firewall",
	"dns-servers-differ":        "the DNS provider",
	"dns-split-horizon":         "the DNS server of the office",
	"dns-stale":                 "it passes",
	"dns-cname-loop":            "the DNS provider",
	"dns-cname-long":            "the DNS provider",
	"dns-dangling":              "the DNS provider",
	"dns-exhausted":             "it passes",
	"source-file":               "the password file",
	"dns-malformed":             "a router",
	"dns-unreachable":           "the network",
	"spf-unavailable":           "it passes",
	"dkim-provider-partly":      "the provider",
	"dkim-provider-broken":      "the provider",
	"mx-none":                   "records of the mailbox provider",
	"mx-implicit":               "as the one before",
	"mx-null":                   "as the one before",
	"mx-null-mixed":             "as the one before",
	"mx-dead":                   "as the one before",
	"mx-address":                "as the one before",
	"mx-cname":                  "as the one before",
	"mx-unresolvable":           "as the one before",
	"ptr-missing":               "whoever gives the address",
	"ptr-unconfirmed":           "as the one before",
	"dnsbl-listed":              "the list",
	"dnsbl-policy":              "the list",
	"dnsbl-refused":             "the resolver",
	"dnsbl-broken":              "the resolver",
	"dnsbl-unavailable":         "it passes",
}

// codesOfAll are the codes of everything that can be found wrong.
func codesOfAll(t *testing.T) (codes []string) {
	for _, c := range doctor.Codes() {
		codes = append(codes, c.Code)
	}
	for name, pattern := range map[string]string{
		"../../relay/dnscheck/advice.go": `\n\t"([a-z0-9-]+)": +\{finding\.([A-Z]\w+)`,
		"../../operate/doctor.go":        `Code: "([a-z-]+)", Weight: finding\.([A-Z]\w+)`,
	} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(data), -1)
		if len(found) == 0 {
			t.Fatalf("%s has no codes", name)
		}
		for _, m := range found {
			if m[2] != "Healthy" {
				codes = append(codes, m[1])
			}
		}
	}
	return codes
}

// TestEachFindingHasAPlace: where it is mended, or why that is outside.
func TestEachFindingHasAPlace(t *testing.T) {
	codes := map[string]bool{}
	for _, code := range codesOfAll(t) {
		codes[code] = true
		if (places[code] == outside) == (outsideReasons[code] == "") {
			t.Errorf("%s: has both a place and a reason that there is none, or neither", code)
		}
	}
	for code := range places {
		if !codes[code] {
			t.Errorf("nothing finds %s", code)
		}
	}
	for code := range outsideReasons {
		if !codes[code] {
			t.Errorf("nothing finds %s", code)
		}
	}
	for code := range settingWords {
		if places[code] != atSettings {
			t.Errorf("%s is not mended by a setting", code)
		}
	}
}

// TestPlacesAreThere: each link leads to a page that is there, for a viewer too, and the words of settings find some.
func TestPlacesAreThere(t *testing.T) {
	r := newRig(t, office(t))
	r.accounts(2)
	r.healthy()
	v := r.visit("de")
	v.actor, v.known = *person(operate.Viewer), true
	for code, p := range places {
		about := "google"
		switch {
		case p == atLogin || p == atLock:
			about = "scanner-00001"
		case p >= atRecords:
			about = "example.com"
		}
		m := mendOf(v, code, about, "", finding.Fault)
		if m == nil {
			t.Errorf("%s: no link", code)
			continue
		}
		path, anchor, _ := strings.Cut(m.Path, "#")
		body := r.page(path)
		if anchor != "" && anchor != "records" && !strings.Contains(body, `id="`+anchor+`"`) {
			t.Errorf("%s: %s has no %s", code, path, anchor)
		}
		if p == atSettings && strings.Contains(body, "No setting is like this") {
			t.Errorf("%s: %s finds nothing", code, path)
		}
		if strings.HasPrefix(m.Label, "Go to") {
			t.Errorf("%s: the link is English: %s", code, m.Label)
		}
	}
	for _, about := range []string{"203.0.113.77", "2001:db8::1"} {
		if m := mendOf(v, "lockout", about, "", finding.Advice); m == nil || m.Path != "/logins" {
			t.Errorf("%s: %+v", about, m)
		}
	}
	if m := mendOf(v, "queue-old", "queue", "", finding.Healthy); m != nil {
		t.Errorf("what is in order has a link: %+v", m)
	}
	if m := mendOf(v, "spf-none", "example.com", "example.com", finding.Fault); m == nil || m.Path != "#records" {
		t.Errorf("on the page of the domain: %+v", m)
	}
	v.actor.Role = operate.Nobody
	if m := mendOf(v, "queue-old", "queue", "", finding.Fault); m != nil {
		t.Errorf("whoever may not see it: %+v", m)
	}
}
