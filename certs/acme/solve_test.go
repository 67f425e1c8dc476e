package acme

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	protocol "github.com/mholt/acmez/v3/acme"

	"postern/internal/testkit"
)

func challengeOf(kind string) protocol.Challenge {
	return protocol.Challenge{Type: kind, Token: "token-1_A", KeyAuthorization: "token-1_A.thumbprint",
		Identifier: protocol.Identifier{Type: "dns", Value: "relay.example.com"}}
}

// On the port of http-01 there is one answer for one name; whoever else comes finds nothing.
func TestHTTPPort(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	stop, err := serveHTTP(t.Context(), address, challengeOf(HTTP01))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	const path, host = "/.well-known/acme-challenge/token-1_A", "relay.example.com"
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	cases := []struct {
		name, request string
		status        int
	}{
		{"the CA", "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200},
		{"the CA, with a port", "GET " + path + " HTTP/1.1\r\nHost: Relay.example.com:80\r\n\r\n", 200},
		{"another name", "GET " + path + " HTTP/1.1\r\nHost: mail.example.com\r\n\r\n", 404},
		{"an address", "GET " + path + " HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", 404},
		{"another token", "GET " + path + "x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 404},
		{"the directory", get("/.well-known/acme-challenge/"), 404},
		{"dots", get("/.well-known/acme-challenge/../acme-challenge/token-1_A"), 404},
		{"escaped dots", get("/.well-known/acme-challenge/%2e%2e/%2e%2e/etc/passwd"), 404},
		{"escaped letters", get("/.well-known/acme-challenge/%74oken-1_A"), 404},
		{"doubled slash", "GET /" + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 404},
		{"the root", get("/"), 404},
		{"health", get("/healthz"), 404},
		{"post", "POST " + path + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\n\r\n", 404},
		{"a proxy's question", "GET http://192.0.2.1" + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 404},
		{"a long header", "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nX: " + strings.Repeat("x", 64<<10) +
			"\r\n\r\n", 431},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go io.WriteString(conn, c.request)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || (string(body) == "token-1_A.thumbprint") != (c.status == 200) {
				t.Errorf("%d, %q", resp.StatusCode, body)
			}
			if c.status == 404 && len(body) != 0 || resp.Header.Get("Location") != "" {
				t.Errorf("it says more than that there is nothing: %q", body)
			}
		})
	}
}

// Whatever is asked, nothing but the one path has the answer.
func FuzzHTTPAnswer(f *testing.F) {
	c := challengeOf(HTTP01)
	for _, path := range []string{c.HTTP01ResourcePath(), "/", "//", "/.well-known/acme-challenge/%74oken-1_A", "*"} {
		f.Add("GET", path, "relay.example.com")
	}
	f.Fuzz(func(t *testing.T, method, target, host string) {
		text := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		httpAnswer(c).ServeHTTP(w, r)
		exact := strings.HasPrefix(target, c.HTTP01ResourcePath()) || strings.Contains(target, "://")
		if w.Body.Len() > 0 && !exact {
			t.Errorf("%q %q %q has the answer", method, target, host)
		}
	})
}

// On the port of tls-alpn-01 only the CA's handshake works, and nothing is served after it.
func TestALPNPort(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	stop, err := serveALPN(t.Context(), address, challengeOf(TLSALPN01))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		server string
		protos []string
		ok     bool
	}{
		{"the CA", "relay.example.com", []string{"acme-tls/1"}, true},
		{"another name", "mail.example.com", []string{"acme-tls/1"}, false},
		{"no name", "", []string{"acme-tls/1"}, false},
		{"a browser", "relay.example.com", []string{"h2", "http/1.1"}, false},
		{"both", "relay.example.com", []string{"acme-tls/1", "http/1.1"}, false},
		{"no protocol", "relay.example.com", nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: c.server,
				NextProtos: c.protos})
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if !c.ok {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: relay.example.com\r\n\r\n")
			if data, _ := io.ReadAll(conn); len(data) != 0 {
				t.Errorf("served %q", data)
			}
		})
	}
	hanging, err := net.Dial("tcp", address) // who says nothing does not hold up the end
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	stop()
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// A port that is taken is told in words.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for kind, serve := range map[string]func() (func(), error){
		HTTP01:    func() (func(), error) { return serveHTTP(t.Context(), l.Addr().String(), challengeOf(HTTP01)) },
		TLSALPN01: func() (func(), error) { return serveALPN(t.Context(), l.Addr().String(), challengeOf(TLSALPN01)) },
	} {
		stop, err := serve()
		stop()
		if err == nil || !strings.Contains(words(err), kind+" needs "+l.Addr().String()+" on this machine") ||
			!strings.Contains(words(err), "address already in use") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
