package autoconfig

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/clientsetup"
	"postern/relay/config"
)

const text = `hostname = "relay.example.com"
[autoconfig]
domains = ["example.com", "bücher.example"]
address = ":443"
[autoconfig.incoming]
host = "imap.example.com"
[[upstream]]
name = "office"
host = "smtp.example.net"
`

func setupOf(text string) func() *clientsetup.Setup {
	return func() *clientsetup.Setup { return clientsetup.Of(config.Parse("relay.toml", []byte(text))) }
}

func newServer(t testing.TB) *Server {
	t.Helper()
	return New(Options{Setup: setupOf(text), Signer: func() *tls.Certificate { return nil }})
}

// ask sends a request as it comes from the wire, with whatever Host.
func ask(h http.Handler, method, target, host, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	path, query, _ := strings.Cut(target, "?")
	r.URL, r.Host, r.RemoteAddr = &url.URL{Path: path, RawQuery: query}, host, "192.0.2.1:4711"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const pox = `<?xml version="1.0" encoding="utf-8"?><Autodiscover xmlns="http://schemas.microsoft.com/exchange/` +
	`autodiscover/outlook/requestschema/2006"><Request><EMailAddress>ADDRESS</EMailAddress><AcceptableResponseSchema>` +
	`http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>` +
	`</Request></Autodiscover>`

func poxOf(address string) string { return strings.Replace(pox, "ADDRESS", address, 1) }

func TestAnswers(t *testing.T) {
	h := newServer(t).Handler()
	for _, c := range []struct {
		method, target, host, body string
		code                       int
		kind, has                  string
	}{
		{"GET", "/mail/config-v1.1.xml?emailaddress=anna@example.com", "autoconfig.example.com", "", 200, "text/xml",
			"<domain>example.com</domain>"},
		{"GET", "/mail/config-v1.1.xml", "autoconfig.example.com:443", "", 200, "text/xml",
			"<domain>example.com</domain>"},
		{"GET", "/mail/config-v1.1.xml", "AUTOCONFIG.EXAMPLE.COM.", "", 200, "text/xml",
			"<domain>example.com</domain>"},
		{"GET", "/.well-known/autoconfig/mail/config-v1.1.xml", "example.com", "", 200, "text/xml",
			"relay.example.com"},
		{"GET", "/mail/config-v1.1.xml", "autoconfig.xn--bcher-kva.example", "", 200, "text/xml",
			"<domain>xn--bcher-kva.example</domain>"},
		{"GET", "/mail/config-v1.1.xml?emailaddress=a%40b%C3%BCcher.example", "x", "", 200, "text/xml",
			"<domain>xn--bcher-kva.example</domain>"},
		{"GET", "/mail/config-v1.1.xml?domain=example.com", "relay.example.com", "", 200, "text/xml", "example.com"},
		{"GET", "/mail/config-v1.1.xml", "relay.example.com", "", 404, "text/plain", "emailaddress"},
		{"GET", "/mail/config-v1.1.xml?emailaddress=anna@example.net", "autoconfig.example.com", "", 404, "text/plain",
			"no settings"},
		{"POST", "/mail/config-v1.1.xml", "autoconfig.example.com", "", 405, "text/plain", "GET"},
		{"GET", "/Mail/config-v1.1.xml", "autoconfig.example.com", "", 404, "text/plain", "nothing here"},
		{"GET", "/", "autoconfig.example.com", "", 404, "text/plain", "nothing here"},
		{"GET", "/metrics", "autoconfig.example.com", "", 404, "text/plain", "nothing here"},
		{"GET", "/login", "autoconfig.example.com", "", 404, "text/plain", "nothing here"},

		{"POST", "/autodiscover/autodiscover.xml", "autodiscover.example.com", poxOf("anna@example.com"), 200,
			"text/xml", "<LoginName>anna@example.com</LoginName>"},
		{"POST", "/Autodiscover/Autodiscover.xml", "x", poxOf("anna@example.com"), 200, "text/xml", "<Port>465</Port>"},
		{"POST", "/AutoDiscover/AutoDiscover.XML", "x", poxOf("anna@example.com"), 200, "text/xml", "<SPA>off</SPA>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", poxOf("nobody@example.com"), 200, "text/xml",
			"<LoginName>nobody@example.com</LoginName>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", poxOf("a&amp;b@example.com"), 200, "text/xml",
			"<LoginName>a&amp;b@example.com</LoginName>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", poxOf("anna@example.net"), 200, "text/xml",
			"<ErrorCode>500</ErrorCode>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", poxOf("&lt;script&gt;"), 200, "text/xml",
			"<ErrorCode>500</ErrorCode>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", "what is this", 200, "text/xml", "<ErrorCode>600</ErrorCode>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", strings.Replace(poxOf("anna@example.com"),
			"outlook/responseschema/2006a", "mobilesync/responseschema/2006", 1), 200, "text/xml",
			"<ErrorCode>601</ErrorCode>"},
		{"POST", "/autodiscover/autodiscover.xml", "x", strings.Repeat("x", 9000), 413, "text/plain", "8 kB"},
		{"GET", "/autodiscover/autodiscover.xml", "x", "", 405, "text/plain", "POST"},

		{"GET", "/.well-known/user-agent-configuration.json", "ua-auto-config.example.com", "", 200, "application/json",
			`"submit":{"host":"relay.example.com"}`},
		{"GET", "/mail/profile.mobileconfig?emailaddress=anna%40example.com", "x", "", 200,
			"application/x-apple-aspen-config", "<string>anna@example.com</string>"},
		{"GET", "/mail/profile.mobileconfig?emailaddress=anna%40example.net", "x", "", 404, "text/plain",
			"whole address"},
		{"GET", "/mail/profile.mobileconfig", "autoconfig.example.com", "", 404, "text/plain", "whole address"},
		{"GET", "/mail/profile.mobileconfig?emailaddress=%0d%0aSet-Cookie:x@example.com", "x", "", 404, "text/plain",
			"whole address"},
	} {
		w := ask(h, c.method, c.target, c.host, c.body)
		got := w.Header()
		if w.Code != c.code || !strings.HasPrefix(got.Get("Content-Type"), c.kind) ||
			!strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s of %s: %d %s, want %d with %s\n%s", c.method, c.target, c.host, w.Code,
				got.Get("Content-Type"), c.code, c.has, w.Body)
		}
		if got.Get("X-Content-Type-Options") != "nosniff" || got.Get("Cache-Control") == "" ||
			got.Get("Set-Cookie") != "" {
			t.Errorf("%s %s: headers %v", c.method, c.target, got)
		}
	}
}

// What an answer says about an address of the office does not depend on anything but the address.
func TestNobodyLearnsWhoIsThere(t *testing.T) {
	h := newServer(t).Handler()
	generic := func(address string) string {
		w := ask(h, "POST", "/autodiscover/autodiscover.xml", "x", poxOf(address))
		return strings.ReplaceAll(w.Body.String(), address, "ADDRESS")
	}
	if a, b := generic("anna@example.com"), generic("no-such-person@example.com"); a != b {
		t.Errorf("%s\nand\n%s", a, b)
	}
}

// Settings with an address in them are kept by nobody, others for minutes.
func TestCaching(t *testing.T) {
	h := newServer(t).Handler()
	for target, want := range map[string]string{
		"/mail/config-v1.1.xml?emailaddress=anna@example.com":           "public, max-age=300",
		"/.well-known/user-agent-configuration.json":                    "public, max-age=300",
		"/mail/profile.mobileconfig?emailaddress=anna@example.com":      "no-store",
		"/mail/config-v1.1.xml?emailaddress=anna@example.net":           "no-store",
		"/.well-known/autoconfig/mail/config-v1.1.xml?domain=other.org": "no-store",
	} {
		if got := ask(h, "GET", target, "relay.example.com", "").Header().Get("Cache-Control"); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// The digest in DNS is over what is served.
func TestPACCDigestIsOfTheAnswer(t *testing.T) {
	s := newServer(t)
	w := ask(s.Handler(), "GET", clientsetup.PACCPath, "ua-auto-config.example.com", "")
	sum := sha256.Sum256(w.Body.Bytes())
	want := "v=UAAC1; a=sha256; d=" + base64.StdEncoding.EncodeToString(sum[:])
	for _, r := range s.Setup().Records("example.com", func(string) bool { return true }) {
		if r.Type == "TXT" && r.Value != want {
			t.Errorf("DNS is to have %s, want %s", r.Value, want)
		}
	}
}

func TestSignedWithTheCertificate(t *testing.T) {
	cert := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	s := New(Options{Setup: setupOf(text), Signer: func() *tls.Certificate { return &cert.TLS }})
	w := ask(s.Handler(), "GET", "/mail/profile.mobileconfig?emailaddress=anna@example.com", "x", "")
	if body := w.Body.String(); w.Code != 200 || !strings.HasPrefix(body, "\x30\x82") ||
		!strings.Contains(body, "<string>anna@example.com</string>") ||
		w.Header().Get("Content-Disposition") != `attachment; filename="mail.mobileconfig"` {
		t.Errorf("%d %v %.100q", w.Code, w.Header(), body)
	}
}

// Plain HTTP tells nothing and leads to one place only.
func TestRedirect(t *testing.T) {
	h := newServer(t).Redirect()
	for _, c := range []struct {
		method, target, host string
		code                 int
		to                   string
	}{
		{"GET", "/mail/config-v1.1.xml?emailaddress=anna@example.com", "autoconfig.example.com", 302,
			"https://relay.example.com/mail/config-v1.1.xml?domain=example.com"},
		{"GET", "/.well-known/autoconfig/mail/config-v1.1.xml", "autoconfig.example.com", 302,
			"https://relay.example.com/.well-known/autoconfig/mail/config-v1.1.xml?domain=example.com"},
		{"GET", "/Autodiscover/Autodiscover.xml", "autodiscover.example.com", 302,
			"https://relay.example.com/autodiscover/autodiscover.xml?domain=example.com"},
		{"GET", "/mail/config-v1.1.xml", "evil.example", 404, ""},
		{"GET", "/mail/config-v1.1.xml?emailaddress=anna@evil.example", "autoconfig.example.com", 404, ""},
		{"GET", "/mail/config-v1.1.xml?domain=evil.example", "autoconfig.example.com", 404, ""},
		{"GET", "//evil.example/mail/config-v1.1.xml", "autoconfig.example.com", 404, ""},
		{"GET", "/mail/profile.mobileconfig?emailaddress=anna@example.com", "autoconfig.example.com", 404, ""},
		{"POST", "/autodiscover/autodiscover.xml", "autodiscover.example.com", 405, ""},
		{"GET", "/", "autoconfig.example.com", 404, ""},
	} {
		w := ask(h, c.method, c.target, c.host, "")
		if w.Code != c.code || w.Header().Get("Location") != c.to || strings.Contains(w.Body.String(), "imap") {
			t.Errorf("%s %s of %s: %d to %q, want %d to %q\n%s", c.method, c.target, c.host, w.Code,
				w.Header().Get("Location"), c.code, c.to, w.Body)
		}
	}
}

// Without domains, what stands behind gets everything.
func TestOff(t *testing.T) {
	behind := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	on, off := newServer(t), New(Options{Setup: setupOf(`hostname = "relay.example.com"`)})
	for path, code := range map[string]int{clientsetup.ThunderbirdPath: 200, "/healthz": 418, "/": 418} {
		if w := ask(on.Before(behind), "GET", path, "example.com", ""); w.Code != code {
			t.Errorf("on, %s: %d", path, w.Code)
		}
		if w := ask(off.Before(behind), "GET", path, "example.com", ""); w.Code != 418 {
			t.Errorf("off, %s: %d", path, w.Code)
		}
		if w := ask(off.Redirect(), "GET", path, "example.com", ""); w.Code != 404 {
			t.Errorf("off, plain %s: %d", path, w.Code)
		}
	}
}

func TestBounds(t *testing.T) {
	c, now := newClients(), time.Unix(1_700_000_000, 0)
	taken := func(remote string, now time.Time) (n int) {
		for c.allow(remote, now) {
			n++
		}
		return n
	}
	for _, step := range []struct {
		remote string
		after  time.Duration
		want   int
	}{
		{"192.0.2.1:1", 0, burst}, {"192.0.2.1:2", 0, 0}, {"192.0.2.2:1", 0, burst},
		{"[2001:db8::1]:1", 0, burst}, {"[2001:db8::2]:1", 0, 0}, {"[2001:db8:0:1::1]:1", 0, burst},
		{"[::ffff:192.0.2.1]:1", 0, 0}, {"pipe", 0, burst}, {"other", 0, 0},
		{"192.0.2.1:1", 10 * time.Second, 10 * perSecond},
	} {
		if got := taken(step.remote, now.Add(step.after)); got != step.want {
			t.Errorf("%s after %s: %d, want %d", step.remote, step.after, got, step.want)
		}
	}
	for i := range 3 * maxClients {
		c.allow(netipOf(i), now)
	}
	if n := c.all.Len(); n != maxClients {
		t.Errorf("%d clients are remembered", n)
	}
	h := newServer(t).Handler()
	for range burst {
		ask(h, "GET", "/", "x", "")
	}
	if w := ask(h, "GET", clientsetup.PACCPath, "x", ""); w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d", w.Code)
	}
}

// TestBehindAWebServer: each client has its own count, and nobody but the web server is believed who it is.
func TestBehindAWebServer(t *testing.T) {
	s := New(Options{Setup: setupOf(text), Signer: func() *tls.Certificate { return nil },
		Proxies: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }})
	taken := func(peer, forwarded string) (n int) {
		for ; n <= 2*burst; n++ {
			r := httptest.NewRequest("GET", clientsetup.PACCPath, nil)
			r.RemoteAddr = peer
			r.Header.Set("X-Forwarded-For", forwarded)
			w := httptest.NewRecorder()
			if s.Handler().ServeHTTP(w, r); w.Code == http.StatusTooManyRequests {
				break
			}
		}
		return n
	}
	for _, c := range []struct {
		peer, forwarded string
		want            int
	}{
		{"127.0.0.1:1", "192.0.2.1", burst}, {"127.0.0.1:2", "192.0.2.2", burst},
		{"127.0.0.1:3", "198.51.100.1, 192.0.2.1", 0},
		{"192.0.2.9:1", "192.0.2.3", burst}, {"192.0.2.9:2", "192.0.2.4", 0},
	} {
		if n := taken(c.peer, c.forwarded); n < c.want || n > c.want+10 {
			t.Errorf("%s for %s: %d, want %d", c.peer, c.forwarded, n, c.want)
		}
	}
}

func netipOf(i int) string {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return netip.AddrPortFrom(addr, 1).String()
}

// Whatever is asked under whatever name, nothing of it comes back but an address of ours.
func FuzzRequest(f *testing.F) {
	f.Add("/mail/config-v1.1.xml", "emailaddress=anna%40example.com", "autoconfig.example.com")
	f.Add("/mail/profile.mobileconfig", "emailaddress=%22%3Cx%3E%22%40example.com", "evil.example\r\nX: y")
	f.Add("/autodiscover/autodiscover.xml", "domain=evil.example", "[::1]:99999")
	s := newServer(f)
	f.Fuzz(func(t *testing.T, path, query, host string) {
		s.clients = newClients()
		for _, h := range []http.Handler{s.Handler(), s.Redirect()} {
			w := ask(h, "GET", path+"?"+query, host, "")
			if to := w.Header().Get("Location"); to != "" && !strings.HasPrefix(to, "https://relay.example.com/") {
				t.Errorf("%q leads to %q", host, to)
			}
			for name, values := range w.Header() {
				if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
					t.Errorf("a header is %q: %q", name, values)
				}
			}
			if len(host) > 30 && strings.Contains(w.Body.String(), host) {
				t.Errorf("the host comes back: %q", w.Body)
			}
		}
	})
}
