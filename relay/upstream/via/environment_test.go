package via

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		proxy string
		err   error
		to    string // who is dialled
		says  string
	}{
		"none": {"", nil, "graph.microsoft.com:443", ""},
		"a port": {"http://user:secret@proxy.example.com:3128", nil, "proxy.example.com:3128",
			"http://proxy.example.com:3128"},
		"no port": {"http://user:secret@proxy.example.com", nil, "proxy.example.com:80",
			"http://proxy.example.com:80"},
		"TLS":           {"https://proxy.example.com/ignored", nil, "proxy.example.com:443", "https://"},
		"SOCKS":         {"socks5://proxy.example.com", nil, "proxy.example.com:1080", "socks5://"},
		"SOCKS, h":      {"socks5h://[2001:db8::1]", nil, "[2001:db8::1]:1080", "socks5://"},
		"not a proxy":   {"ftp://user:secret@proxy.example.com", nil, "", "cannot be read"},
		"cannot be had": {"", errors.New("user:secret@"), "", "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			refused := errors.New("refused here")
			var dialled string
			dial := environment(func(_ context.Context, _, address string) (net.Conn,
				error) {
				dialled = address
				return nil, refused
			},
				func(r *http.Request) (*url.URL, error) {
					if r.URL.Scheme != "https" || r.URL.Host != "graph.microsoft.com:443" {
						t.Errorf("asked for %s", r.URL)
					}
					if c.proxy == "" {
						return nil, c.err
					}
					u, err := url.Parse(c.proxy)
					if err != nil {
						t.Fatal(err)
					}
					return u, nil
				})
			_, err := dial(t.Context(), "tcp", "graph.microsoft.com:443")
			var told *Error
			if dialled != c.to || err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("dialled %q: %v", dialled, err)
			}
			if c.says != "" && (!errors.As(err, &told) || !strings.Contains(err.Error(), "HTTPS_PROXY") ||
				!strings.Contains(err.Error(), c.says) && c.to != "") {
				t.Errorf("told %v", err)
			}
		})
	}
}
