package via_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/internal/testkit/pki"
	"postern/relay/upstream/via"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"http://proxy.example.com:3128":           "http://proxy.example.com:3128",
		"https://u:hunter2@proxy:443/":            "https://proxy:443",
		"socks5://u:hunter2@[2001:db8::1]:1080":   "socks5://[2001:db8::1]:1080",
		"SOCKS5H://127.0.0.1:1":                   "socks5://127.0.0.1:1",
		" http://u:hunter2%40%3A@192.0.2.1:8080 ": "http://192.0.2.1:8080",
	} {
		p, err := via.Parse(text)
		if err != nil || p.String() != want {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	for text, want := range map[string]string{
		"":                                  "is not the address",
		"proxy.example.com:3128":            "is not the address",
		"http:proxy:3128":                   "is not the address",
		"http://u:hunter2%@proxy:1":         "is not the address",
		"http://u:hunter/2@proxy:3128":      "is not the address",
		"ftp://proxy:21":                    "none of http://",
		"socks4://proxy:1080":               "none of http://",
		"http://proxy":                      "has no port",
		"http://proxy:":                     "has no port",
		"http://proxy:0":                    "has no port",
		"http://proxy:65536":                "has no port",
		"http://:3128":                      "has no host",
		"http://pröxy:3128":                 "has no host",
		"http://u:hunter2@pro xy:3128":      "is not the address",
		"http://proxy:3128/x":               "has a path",
		"http://proxy:3128?a=hunter2":       "has a path",
		"http://a%3Ab:hunter2@proxy:3128":   "has a colon",
		"http://a:hunter2%0D%0A@proxy:3128": "has a colon in the user name or a control",
		"socks5://user@proxy:1080":          "1 to 255",
		"socks5://:hunter2@proxy:1080":      "1 to 255",
		"socks5://u:" + strings.Repeat("x", 256) + "@proxy:1080": "1 to 255",
	} {
		_, err := via.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	p, err := via.Parse("http://scott:hunter2@proxy.example.com:3128")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "proxy", p)
	all := fmt.Sprintf("%v %+v %#v %s %q %x", p, p, p, p, p, p) + log.String()
	if strings.Contains(all, "hunter2") || strings.Contains(all, "scott") ||
		!strings.Contains(all, "http://proxy.example.com:3128") {
		t.Error(all)
	}
}

// banner serves a line to everybody, and repeats what it gets.
func banner(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(nc, "220 hello\r\n")
			go func() { io.Copy(nc, nc); nc.Close() }()
		}
	}()
	return l.Addr().String()
}

func TestDial(t *testing.T) {
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Leaf(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	secure := cert.Server()
	for _, c := range []struct {
		name, scheme, login string
		proxy               *testkit.Proxy
	}{
		{"http", "http://", "", &testkit.Proxy{}},
		{"http with login", "http://", "scott:t%3Ager@", &testkit.Proxy{User: "scott", Password: "t:ger"}},
		{"login that nobody asks for", "http://", "scott:tiger@", &testkit.Proxy{}},
		{"https", "https://", "scott:tiger@", &testkit.Proxy{TLS: secure, User: "scott", Password: "tiger"}},
		{"socks5", "socks5://", "", &testkit.Proxy{}},
		{"socks5 with login", "socks5h://", "scott:tiger@", &testkit.Proxy{User: "scott", Password: "tiger"}},
	} {
		for _, target := range []string{"smtp.example.net:587", "192.0.2.1:25", "[2001:db8::1]:25"} {
			t.Run(c.name+" "+target, func(t *testing.T) {
				proxy := &testkit.Proxy{To: banner(t), TLS: c.proxy.TLS, User: c.proxy.User, Password: c.proxy.Password}
				p := listen(t, proxy, c.scheme, c.login)
				p.RootCAs = ca.Pool
				nc, err := p.Dial(t.Context(), "tcp", target)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				io.WriteString(nc, "ping")
				got := make([]byte, len("220 hello\r\nping"))
				if _, err := io.ReadFull(nc, got); err != nil || string(got) != "220 hello\r\nping" {
					t.Errorf("%q, %v", got, err)
				}
				if asked := proxy.Asked(); len(asked) != 1 || asked[0] != target {
					t.Errorf("asked for %q", asked)
				}
			})
		}
	}
}

func listen(t *testing.T, proxy *testkit.Proxy, scheme, login string) *via.Proxy {
	t.Helper()
	at, err := proxy.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	p, err := via.Parse(scheme + login + at)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		scheme, login string
		proxy         *testkit.Proxy
		code          int
		person        bool
		text          string
	}{
		{"http://", "", &testkit.Proxy{User: "a", Password: "b"}, 407, true,
			"wants a login (407 Proxy Authentication Required); write user and password"},
		{"http://", "u:hunter2@", &testkit.Proxy{User: "a", Password: "b"}, 407, true,
			"refuses the user name or password in its address"},
		{"http://", "u:hunter2@", &testkit.Proxy{Answer: "HTTP/1.1 407 no\r\nproxy-authenticate: " +
			"NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n"}, 407, true, "wants a login by NTLM or Negotiate"},
		{"http://", "u:hunter2@", &testkit.Proxy{Answer: "HTTP/1.1 407 no\r\nProxy-Authenticate: " +
			"hunter2\r\nProxy-Authenticate: dTpodW50ZXIy\r\n\r\n"}, 407, true,
			"wants a login by a scheme that is not ours"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.1 403 dTpodW50ZXIy hunter2\r\n\r\nhunter2"}, 403, false,
			"does not let us connect to smtp.example.net:587 (403 Forbidden)"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.0 502 x\r\n\r\n"}, 502, false,
			"cannot reach smtp.example.net:587 (502 Bad Gateway)"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.0 503\r\n\r\n"}, 503, false, "cannot reach"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.0 504 x\n\n"}, 504, false, "cannot reach"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.0 500 x\r\n\r\n"}, 500, false,
			"does not connect us to smtp.example.net:587 (500"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.1 599 x\r\n\r\n"}, 599, false, "(599)"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.1 302 go\r\nLocation: http://login.example.com/\r\n\r\n"}, 302,
			false, "(302 Found)"},
		{"http://", "", &testkit.Proxy{Answer: "220 smtp.example.net ESMTP\r\n"}, 0, false, "is no HTTP"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.1 OK\r\n\r\n"}, 0, false, "is no HTTP"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP/1.1 200 " + strings.Repeat("x", 20<<10)}, 0, false, "is no HTTP"},
		{"http://", "", &testkit.Proxy{Answer: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9)}, 0, false,
			"is no HTTP"},
		{"http://", "", &testkit.Proxy{Answer: "HTTP"}, 0, false,
			"closed the connection when asked for smtp.example.net:587"},
		{"https://", "", &testkit.Proxy{Answer: "HTTP/1.1 400 Bad Request\r\n\r\n"}, 0, false, "in time"},
		{"socks5://", "", &testkit.Proxy{User: "a", Password: "b"}, 0, true, "wants a login; write user"},
		{"socks5://", "u:hunter2@", &testkit.Proxy{User: "a", Password: "b"}, 0, true,
			"refuses the user name or password"},
		{"socks5://", "", &testkit.Proxy{Answer: "\x05\x02\x00\x01"}, 0, false, "does not let us connect"},
		{"socks5://", "", &testkit.Proxy{Answer: "\x05\x05\x00\x01"}, 0, false, "(connection refused)"},
		{"socks5://", "", &testkit.Proxy{Answer: "\x05\x63\x00\x01"}, 0, false, "(reply 99)"},
		{"socks5://", "", &testkit.Proxy{Answer: "HTTP/1.1 400\r\n"}, 0, false, "is no SOCKS5"},
		{"socks5://", "", &testkit.Proxy{Answer: "\x05\x00\x00\x09"}, 0, false, "is no SOCKS5"},
		{"http://", "", &testkit.Proxy{Stall: true}, 0, false, "did not connect us to smtp.example.net:587 in time"},
		{"socks5://", "", &testkit.Proxy{Stall: true}, 0, false, "did not connect us to smtp.example.net:587 in time"},
	} {
		c.proxy.To = "127.0.0.1:1"
		p := listen(t, c.proxy, c.scheme, c.login)
		patience := time.Minute
		if strings.HasSuffix(c.text, "in time") {
			patience = 50 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		nc, err := p.Dial(ctx, "tcp", "smtp.example.net:587")
		cancel()
		if err == nil {
			nc.Close()
			t.Errorf("%s: connected", c.text)
			continue
		}
		var e *via.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Login != c.person {
			t.Errorf("%s: got %+v", c.text, e)
			continue
		}
		if text := err.Error(); !strings.Contains(text, c.text) || !strings.Contains(text, p.String()) ||
			!strings.Contains(text, "key proxy") || strings.Contains(text, "hunter2") {
			t.Errorf("got %q, want %q", text, c.text)
		}
	}
}

func TestProxyOutOfReach(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p, _ := via.Parse("http://u:hunter2@" + l.Addr().String())
	_, err = p.Dial(t.Context(), "tcp", "smtp.example.net:587")
	if want := "the proxy http://" + l.Addr().String() +
		" refuses connections (key proxy of this upstream)"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Parse takes whatever it is given, and tells nothing of it.
func FuzzParse(f *testing.F) {
	f.Add("http://user:password@proxy.example.com:3128")
	f.Add("socks5://[::1]:1080")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := via.Parse(text)
		if err == nil && (p.Host() == "" || strings.ContainsAny(p.String(), "@\r\n ")) {
			t.Errorf("%q: %s", text, p)
		}
	})
}
