package clientsetup

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postern/mail"
	"postern/relay/config"
)

var update = flag.Bool("update", false, "write what is made now into testdata as what is expected")

// setupOf reads a configuration of testdata.
func setupOf(t testing.TB, name string) *Setup {
	t.Helper()
	c, err := config.Load(filepath.Join("testdata", name+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	return Of(c)
}

// covered is a certificate for some names.
func covered(names ...string) func(string) bool {
	return func(host string) bool {
		for _, n := range names {
			if n == host {
				return true
			}
		}
		return false
	}
}

// made is a document, or why there is none.
func made(t *testing.T, document []byte, err error) string {
	t.Helper()
	unfit, ok := errors.AsType[*Unfit](err)
	switch {
	case ok:
		return unfit.Error() + "\n"
	case err != nil:
		t.Fatal(err)
	}
	return string(document)
}

func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) { checkGolden(t, name) })
	}
}

func checkGolden(t *testing.T, name string) {
	s := setupOf(t, name)
	domain := s.Domains[0]
	anna := mail.Address{Local: "anna", Domain: domain}
	var records, card strings.Builder
	for _, r := range s.Records(domain, covered("relay.example.com", "autoconfig.example.com")) {
		fmt.Fprintf(&records, "%s. 300 IN %s %s\n", r.Name, r.Type, zone(r))
		if r.Note != "" {
			fmt.Fprintf(&records, "; %s\n", r.Note)
		}
	}
	enc := json.NewEncoder(&card)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s.Card("anna@"+domain, nil, covered("relay.example.com"))); err != nil {
		t.Fatal(err)
	}
	thunderbird, err1 := s.Thunderbird(domain)
	outlook, err2 := s.Outlook(anna)
	apple, err3 := s.Apple(anna)
	pacc, err4 := s.PACC()
	for kind, text := range map[string]string{
		"thunderbird.xml": made(t, thunderbird, err1), "outlook.xml": made(t, outlook, err2),
		"apple.plist": made(t, apple, err3), "pacc.json": made(t, pacc, err4), "records": records.String(),
		"card.json": card.String(),
	} {
		file := filepath.Join("testdata", name+"."+kind)
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || string(want) != text {
			t.Errorf("%s: %v; made\n%s\ninstead of\n%s", file, err, text, want)
		}
	}
	for zp := dns.NewZoneParser(strings.NewReader(records.String()), "", ""); ; {
		if _, ok := zp.Next(); !ok {
			if err := zp.Err(); err != nil {
				t.Errorf("the records are no zone: %v\n%s", err, records.String())
			}
			break
		}
	}
}

func zone(r Record) string {
	if r.Type == "TXT" {
		return `"` + r.Value + `"`
	}
	return r.Value + "."
}

// Everything that is told is well-formed, whatever the office and the person are called.
func TestWellFormed(t *testing.T) {
	s := setupOf(t, "idn")
	odd := mail.Address{Local: `a"<b>&'c\`, Domain: s.Domains[0]}
	if odd.String() == odd.Local+"@"+odd.Domain {
		t.Fatal("it is not odd")
	}
	thunderbird, err1 := s.Thunderbird(s.Domains[0])
	outlook, err2 := s.Outlook(odd)
	apple, err3 := s.Apple(odd)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, document := range [][]byte{thunderbird, outlook, apple} {
		texts := textsOf(t, document)
		if !strings.Contains(texts, s.Name) && !strings.Contains(texts, odd.String()) {
			t.Errorf("neither name nor address come through:\n%s", document)
		}
	}
}

// textsOf reads XML to its end and returns the texts in it.
func textsOf(t *testing.T, document []byte) string {
	t.Helper()
	var b strings.Builder
	for d := xml.NewDecoder(strings.NewReader(string(document))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		if text, ok := token.(xml.CharData); ok {
			b.Write(text)
		}
	}
}

// The digest is over the octets that are served.
func TestPACCDigest(t *testing.T) {
	// printf '{}' | openssl dgst -sha256 -binary | base64
	if got := PACCDigest([]byte("{}")); got != "v=UAAC1; a=sha256; d=RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=" {
		t.Error(got)
	}
	document, err := setupOf(t, "usual").PACC()
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		Protocols map[string]struct{ Host string }
	}
	if err := json.Unmarshal(document, &read); err != nil || read.Protocols["submit"].Host != "relay.example.com" ||
		read.Protocols["smtp"].Host != "relay.example.com" || read.Protocols["imap"].Host != "imap.example.com" {
		t.Errorf("%v: %s", err, document)
	}
}

func TestCardOfOddLogins(t *testing.T) {
	s := setupOf(t, "usual")
	for _, c := range []struct {
		login   string
		senders []string
		address string
		note    string
		auto    bool
	}{
		{"anna@example.com", nil, "anna@example.com", "", true},
		{"anna.b@example.com", []string{"anna@example.com"}, "anna.b@example.com", "", true},
		{"anna", []string{"*@example.com", "{login}", "anna@example.com"}, "anna@example.com", "correct it to anna",
			true},
		{"scanner", []string{"*@example.com"}, "", "no address", false},
		{"bob@example.net", nil, "bob@example.net", "example.net is not in [autoconfig] domains", false},
	} {
		card := s.Card(c.login, c.senders, covered("relay.example.com"))
		if card.Address != c.address || !strings.Contains(strings.Join(card.Notes, "\n"), c.note) ||
			c.note == "" && len(card.Notes) > 0 || card.Families[0].Automatic != c.auto {
			t.Errorf("%s: %+v", c.login, card)
		}
	}
	if card := s.Card("anna@example.com", nil, covered()); card.Families[0].Automatic ||
		!strings.Contains(card.Notes[0], "do not read the settings at relay.example.com") {
		t.Errorf("without a certificate: %+v", card)
	}
}

func TestParseOutlook(t *testing.T) {
	const request = `<?xml version="1.0" encoding="utf-8"?><Autodiscover xmlns="http://schemas.microsoft.com/` +
		`exchange/autodiscover/outlook/requestschema/2006"><Request><EMailAddress>anna@example.com</EMailAddress>` +
		`<AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a` +
		`</AcceptableResponseSchema></Request></Autodiscover>`
	r, err := ParseOutlook([]byte(request))
	if err != nil || r.Address != "anna@example.com" || !r.Outlook() {
		t.Errorf("%+v, %v", r, err)
	}
	sync := strings.Replace(request, "outlook/responseschema/2006a", "mobilesync/responseschema/2006", 1)
	if r, err := ParseOutlook([]byte(sync)); err != nil || r.Outlook() {
		t.Errorf("%+v, %v", r, err)
	}
	for name, body := range map[string]string{
		"empty": "", "text": "hello", "no address": strings.Replace(request, "EMailAddress", "LegacyDN", 2),
		"cut": request[:200], "document type": strings.Replace(request, "?>", `?><!DOCTYPE x [<!ENTITY e "v">]>`, 1),
		"entity":    strings.Replace(request, "anna@", "&e;@", 1),
		"encoding":  strings.Replace(request, "utf-8", "utf-16", 1),
		"deep":      strings.Repeat("<a>", 50) + strings.Repeat("</a>", 50),
		"many":      "<a>" + strings.Repeat("<b/>", 500) + "</a>",
		"long":      strings.Replace(request, "anna@", strings.Repeat("x", 2000)+"@", 1),
		"huge":      request + strings.Repeat(" ", MaxOutlookRequest),
		"elsewhere": "<EMailAddress>anna@example.com</EMailAddress>",
	} {
		if r, err := ParseOutlook([]byte(body)); err == nil {
			t.Errorf("%s is taken: %+v", name, r)
		}
	}
}

func FuzzParseOutlook(f *testing.F) {
	f.Add([]byte(`<Autodiscover><Request><EMailAddress>anna@example.com</EMailAddress></Request></Autodiscover>`))
	f.Add([]byte(`<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`))
	s := setupOf(f, "usual")
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseOutlook(body)
		if err != nil {
			return
		}
		address, _, err := s.ParseAddress(r.Address)
		if err != nil {
			return
		}
		answer, err := s.Outlook(address)
		if err != nil {
			t.Fatal(err)
		}
		var read autodiscoverAnswer
		if err := xml.Unmarshal(answer, &read); err != nil || len(read.Response.Protocol) != 2 ||
			mail.IsASCII(address.Local) && read.Response.Protocol[1].LoginName != address.String() {
			t.Errorf("%v: %q became\n%s", err, r.Address, answer)
		}
	})
}

func FuzzAddress(f *testing.F) {
	f.Add("anna@example.com")
	f.Add(`"a b"@EXAMPLE.com`)
	s := setupOf(f, "usual")
	f.Fuzz(func(t *testing.T, text string) {
		address, domain, err := s.ParseAddress(text)
		if err != nil {
			return
		}
		if domain != "example.com" {
			t.Errorf("%q is of %s", text, domain)
		}
		profile, err := s.Apple(address)
		if err != nil {
			t.Fatal(err)
		}
		textsOf(t, profile)
	})
}

func TestUUID(t *testing.T) {
	a, b := uuid("account", "anna@example.com"), uuid("account", "bob@example.com")
	if a == b || a != uuid("account", "anna@example.com") || len(a) != 36 || a[14] != '8' {
		t.Error(a, b)
	}
}

// PACC takes the port that it knows, also where another one with TLS from the start stands before it.
func TestPACCBesideAnotherPort(t *testing.T) {
	s := setupOf(t, "usual")
	first := s.Outgoing[0]
	first.Port, first.TLS = 443, config.Implicit
	usual, err := s.PACC()
	want := made(t, usual, err)
	s.Outgoing = append([]Server{first}, s.Outgoing...)
	document, err := s.PACC()
	if got := made(t, document, err); got != want {
		t.Error(got)
	}
}
