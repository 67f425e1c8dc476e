package autoconfig

import (
	"strings"
	"testing"
	"unicode/utf16"
)

// Names in the Host field, as people and attackers write them. Only a domain of ours counts, and none is repeated.
func TestHostileHosts(t *testing.T) {
	h := newServer(t).Handler()
	for host, code := range map[string]int{
		"autoconfig.example.com:8443": 200, "example.com.": 200, "EXAMPLE.com:1": 200,
		"[2001:db8::1]": 404, "[2001:db8::1]:443": 404, "192.0.2.1": 404, "[::1": 404, "": 404, ":443": 404,
		"example.com@evil.example": 404, "evil.example@example.com": 404, "user:pass@example.com": 404,
		"example.com.evil.example": 404, "autoconfig.autoconfig.example.com": 404, "example.com..": 404,
		"<script>": 404, "example.com:443:443": 404, "bücher.example": 404, "evil.example": 404,
	} {
		for _, path := range []string{"/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"} {
			w := ask(h, "GET", path, host, "")
			if w.Code != code {
				t.Errorf("%s at %q: %d, want %d", path, host, w.Code, code)
			}
			if text := w.Body.String(); strings.Contains(text, "evil") || strings.Contains(text, "script") {
				t.Errorf("%q is repeated: %s", host, text)
			}
			if c := w.Header().Get("Cache-Control"); code != 200 && c != "no-store" {
				t.Errorf("%q: an error may be kept: %q", host, c)
			}
		}
	}
}

// What Outlook does not send is an error of the format, and nothing of it comes back.
func TestHostileOutlook(t *testing.T) {
	h := newServer(t).Handler()
	good := poxOf("anna@example.com")
	wide := "\xff\xfe"
	for _, u := range utf16.Encode([]rune(strings.Replace(good, "utf-8", "utf-16", 1))) {
		wide += string([]byte{byte(u), byte(u >> 8)})
	}
	bomb := `<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>`
	for name, c := range map[string]struct {
		body string
		code int
		has  string
	}{
		"entity bomb": {bomb + strings.Replace(poxOf("&b;@example.com"), "<?xml", "<?x", 1), 200, ">600<"},
		"external entity": {`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + poxOf("&e;@example.com"), 200,
			">600<"},
		"UTF-16":         {wide, 200, ">600<"},
		"a megabyte":     {good + strings.Repeat(" ", 1<<20), 413, "8 kB"},
		"markup":         {poxOf("<evil>anna</evil>@example.com"), 200, ">500<"},
		"escaped markup": {poxOf("&lt;evil/&gt;@example.com"), 200, ">500<"},
		"quoted markup":  {poxOf(`"&lt;evil/&gt;"@example.com`), 200, "&lt;evil/&gt;"},
		"CDATA":          {poxOf("<![CDATA[anna@example.com]]>"), 200, "<Port>465</Port>"},
		"comment":        {poxOf("anna<!-- evil -->@example.com"), 200, ">500<"},
		"NUL":            {poxOf("anna\x00@example.com"), 200, ">600<"},
		"two addresses":  {poxOf("anna@example.com</EMailAddress><EMailAddress>evil@example.net"), 200, "anna@"},
		"stray end":      {"</a>", 200, ">600<"},
	} {
		w := ask(h, "POST", "/autodiscover/autodiscover.xml", "autodiscover.example.com", c.body)
		text := w.Body.String()
		if w.Code != c.code || !strings.Contains(text, c.has) || strings.Contains(text, "<evil") ||
			strings.Contains(text, "root:") || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %q %s", name, w.Code, w.Header().Get("Cache-Control"), text)
		}
	}
}
