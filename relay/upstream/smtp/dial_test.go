package smtp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/upstream"
)

func TestEveryAddressIsTriedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dialled []string
		u := newUpstream(t, Config{Host: "mx.example.com", Port: 2525, TLS: upstream.TLSNone,
			Timeouts: timeouts(func(t *Timeouts) { t.Connect = 10 * time.Second }),
			Resolve: func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"),
					netip.MustParseAddr("192.0.2.2")}, nil
			},
			Settings: upstream.Settings{Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				dialled = append(dialled, address)
				switch len(dialled) {
				case 1: // a black hole
					<-ctx.Done()
					return nil, ctx.Err()
				case 2:
					return nil, errno.Refused
				}
				c, s := net.Pipe()
				go serveOne(s)
				return c, nil
			}}})
		begun := time.Now()
		wantClasses(t, send(t, u, message(t)), "delivered")
		if !slices.Equal(dialled, []string{"[2001:db8::1]:2525", "192.0.2.1:2525", "192.0.2.2:2525"}) {
			t.Errorf("dialled %v", dialled)
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestConnectFaults(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}
	for _, c := range []struct {
		name    string
		resolve error
		addrs   []netip.Addr
		dial    error
		stage   mail.Stage
		text    string
	}{
		{"no such name", &net.DNSError{IsNotFound: true}, nil, nil, mail.StageResolve,
			"there is no address for the name mx.example.com"},
		{"no address", nil, nil, nil, mail.StageResolve, "there is no address"},
		{"DNS down", errors.New("timeout"), nil, nil, mail.StageResolve, "cannot be looked up"},
		{"refused", nil, addrs, errno.Refused, mail.StageConnect,
			"[2001:db8::1]:587 refuses connections; 192.0.2.1:587 refuses connections"},
		{"unreachable", nil, addrs, errno.NetworkUnreachable, mail.StageConnect, "cannot be reached from here"},
		{"timeout", nil, addrs, context.DeadlineExceeded, mail.StageConnect, "does not answer"},
	} {
		u := newUpstream(t, Config{Host: "mx.example.com", TLS: upstream.TLSNone,
			Resolve: func(context.Context, string) ([]netip.Addr, error) { return c.addrs, c.resolve },
			Settings: upstream.Settings{Dial: func(context.Context, string, string) (net.Conn,
				error) {
				return nil, c.dial
			}}})
		r := send(t, u, message(t))[0]
		if r.Class != mail.BackPressure || r.Stage != c.stage || !strings.Contains(r.Reply.Text, c.text) {
			t.Errorf("%s: got %s at %s: %s", c.name, r.Class, r.Stage, r.Reply)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"tls":          func(c *Config) { c.TLS = "maybe" },
		"host":         func(c *Config) { c.Host = "" },
		"host form":    func(c *Config) { c.Host = "mx.example.com\r\nQUIT" },
		"port":         func(c *Config) { c.Port = 70000 },
		"no port":      func(c *Config) { c.Port = 0 },
		"local name":   func(c *Config) { c.LocalName = "a\r\nb" },
		"mechanism":    func(c *Config) { c.Mechanisms = []string{"GSSAPI"} },
		"no mechanism": func(c *Config) { c.Username, c.Mechanisms = user, nil },
		"connections":  func(c *Config) { c.MaxConnections = 0 },
		"recipients":   func(c *Config) { c.MaxRecipients = 0 },
		"messages":     func(c *Config) { c.MessagesPerConnection = 0 },
		"a timeout":    func(c *Config) { c.Timeouts.Drain = 0 },
		"log":          func(c *Config) { c.Logger = nil },
		"extension":    func(c *Config) { c.AssumeExtensions = []string{"AUTH PLAIN"} },
		"denied":       func(c *Config) { c.DenyExtensions = []string{"STARTTLS"} },
		"no count": func(c *Config) {
			c.Rates = []upstream.Rate{{Count: 0, Unit: upstream.Messages,
				Per: time.Hour}}
		},
		"octets":  func(c *Config) { c.Rates = []upstream.Rate{{Count: 1, Unit: "octets", Per: time.Hour}} },
		"no time": func(c *Config) { c.Rates = []upstream.Rate{{Count: 1, Unit: upstream.Messages}} },
	} {
		cfg := whole(Config{})
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A server without EHLO gets HELO when nothing that only EHLO has is needed.
func TestHELO(t *testing.T) {
	old := func(nc net.Conn) {
		defer nc.Close()
		c, s := net.Pipe()
		go serveOne(s)
		defer c.Close()
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		nc.Write(buf[:n])
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			if strings.HasPrefix(string(buf[:n]), "EHLO") {
				nc.Write([]byte("500 what?\r\n"))
				continue
			}
			quit := strings.HasPrefix(string(buf[:n]), "QUIT")
			c.Write(buf[:n])
			if n, err = c.Read(buf); err != nil {
				return
			}
			nc.Write(buf[:n])
			if quit {
				return
			}
		}
	}
	wantClasses(t, send(t, pipes(t, old, nil), message(t)), "delivered")
	r := send(t, pipes(t, old, func(cfg *Config) { cfg.Username, cfg.Password = user, password }), message(t))
	wantClasses(t, r, "account-fault")
}
