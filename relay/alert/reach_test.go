package alert

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// Reach proves the certificate and asks nothing.
func TestReach(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	const secret = "/services/T0p5ecret"
	for _, c := range []struct {
		name string
		hook Hook
		want string
	}{
		{"reached", Hook{URL: server.URL + secret, RootCAs: roots}, ""},
		{"not trusted", Hook{URL: server.URL + secret}, "certificate"},
		{"no TLS", Hook{URL: "https://" + plain(t) + secret}, "TLS"},
		{"closed", Hook{URL: "https://127.0.0.1:1" + secret}, "refused"},
		{"this machine", Hook{URL: "http://" + plain(t) + secret}, ""},
		{"not in clear", Hook{URL: "http://192.0.2.1" + secret}, "is not the address of a hook"},
		{"no name", Hook{URL: "https://hook.example" + secret, dial: func(context.Context, string, string) (net.Conn,
			error) {
			return nil, &net.DNSError{Err: "no such host", Name: "hook.example" + secret, IsNotFound: true}
		}}, "no such host"},
	} {
		err := Reach(t.Context(), c.hook)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", c.name, err)
		case err != nil && strings.Contains(err.Error(), "T0p5ecret"):
			t.Errorf("%s: the secret is told: %v", c.name, err)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// plain is the address of a server that says something else.
func plain(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
