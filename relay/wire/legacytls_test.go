package wire

import (
	"context"
	"crypto/tls"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/certs"
	"postern/internal/testkit"
)

// bothKinds are an ECDSA and an RSA certificate.
var bothKinds = sync.OnceValue(func() [2]tls.Certificate {
	both, err := certs.SelfSigned([]string{"relay.example.com"}, time.Now())
	if err != nil {
		panic(err)
	}
	return both
})

// present chooses as package certs does: the first that the client supports.
func present(all ...tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		for i := range all {
			if h.SupportsCertificate(&all[i]) == nil {
				return &all[i], nil
			}
		}
		return &all[len(all)-1], nil
	}
}

// device is an old client, as OpenSSL at security level 0 plays it.
type device struct {
	name     string
	options  string // of openssl s_client
	min      uint16 // of the tolerant listener that takes it, 0: none does
	chosen   string // what they then speak
	standard string // what the standard listener says
}

var devices = []device{
	{"TLS 1.2 with RSA key exchange", "-tls1_2 -cipher AES128-SHA:AES256-SHA:@SECLEVEL=0", tls.VersionTLS12,
		"AES128-SHA", `the client offers TLS 1.2, TLS 1.1, TLS 1.0 with TLS_RSA_WITH_AES_128_CBC_SHA, ` +
			`TLS_RSA_WITH_AES_256_CBC_SHA; ` +
			`this listener wants ECDHE key exchange with AES or ChaCha20: give such devices a [[listener]] of ` +
			`their own with profile = "appliance"`},
	{"TLS 1.2 with 3DES", "-tls1_2 -cipher DES-CBC3-SHA:@SECLEVEL=0", tls.VersionTLS12, "DES-CBC3-SHA",
		`profile = "appliance"`},
	{"TLS 1.2 with AES-GCM and RSA key exchange", "-tls1_2 -cipher AES128-GCM-SHA256:@SECLEVEL=0", tls.VersionTLS12,
		"AES128-GCM-SHA256", `profile = "appliance"`},
	{"TLS 1.2 with SHA-1 signatures alone",
		"-tls1_2 -sigalgs RSA+SHA1 -cipher ECDHE-RSA-AES128-SHA:AES128-SHA:@SECLEVEL=0", tls.VersionTLS12,
		"AES128-SHA", `no signature but SHA-1, which broke: give such devices a [[listener]]`},
	{"TLS 1.1", "-tls1_1 -cipher ALL:@SECLEVEL=0", tls.VersionTLS11, "ECDHE-",
		`this listener wants TLS 1.2 or newer: give such devices a [[listener]] of their own with profile = ` +
			`"appliance" and networks = their range, and min_version = "1.0"`},
	{"TLS 1.0 with RSA key exchange", "-tls1 -cipher AES128-SHA:AES256-SHA:@SECLEVEL=0", tls.VersionTLS10,
		"AES128-SHA", `the client offers only TLS 1.0 with TLS_RSA_WITH_AES_128_CBC_SHA`},
	{"TLS 1.0 with 3DES alone", "-tls1 -cipher DES-CBC3-SHA:@SECLEVEL=0", tls.VersionTLS10, "DES-CBC3-SHA",
		`min_version = "1.0"`},
	{"DHE alone", "-tls1_2 -cipher DHE-RSA-AES128-SHA:@SECLEVEL=0", 0, "",
		`no listener takes that: update the device, or give it a [[listener]] with tls = "none"`},
	{"a current one", "-cipher DEFAULT", tls.VersionTLS12, "TLS_AES_", ""},
}

// sClient runs openssl against a server and returns what it said, and whether the handshake succeeded.
func sClient(t *testing.T, addr, options string) (said string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	args := append([]string{"s_client", "-connect", addr, "-servername", "relay.example.com"},
		strings.Fields(options)...)
	cmd := exec.CommandContext(ctx, testkit.Need(t, "openssl"), args...)
	cmd.Env = []string{"OPENSSL_CONF=/dev/null"} // or the machine's own minimum counts
	out, _ := cmd.CombinedOutput()
	said = string(out)
	return said, strings.Contains(said, "Cipher is ") && !strings.Contains(said, "Cipher is (NONE)")
}

// connect is sClient for a device. Debian's OpenSSL has no 3DES, so Go plays those.
func (d device) connect(t *testing.T, addr string) (said string, ok bool) {
	t.Helper()
	if !strings.Contains(d.options, "DES-CBC3-SHA") {
		return sClient(t, addr, d.options)
	}
	conf := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}}
	if strings.Contains(d.options, "-tls1 ") {
		conf.MaxVersion = tls.VersionTLS10
	}
	conn, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		return err.Error(), false
	}
	defer conn.Close()
	return "Cipher is DES-CBC3-SHA", conn.ConnectionState().CipherSuite == tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA
}

func startLegacy(t *testing.T, minVersion uint16) *testServer {
	return startServer(t, func(o *Options, b *backend) {
		o.TLSMode, o.Appliance = Implicit, true
		o.TLS = LegacyTLS(present(bothKinds()[0], bothKinds()[1]), minVersion)
	})
}

// TestOldDevices: each gets in at a listener made for it, with the cipher suite that it knows, and at no other, where
// it is told in words what to set.
func TestOldDevices(t *testing.T) {
	for _, d := range devices {
		t.Run(d.name, func(t *testing.T) {
			if d.min != 0 {
				said, ok := d.connect(t, startLegacy(t, d.min).addr)
				if !ok || !strings.Contains(said, "Cipher is "+d.chosen) {
					t.Errorf("not taken:\n%s", said)
				}
			}
			if d.min == tls.VersionTLS10 || d.min == tls.VersionTLS11 { // not without min_version
				s := startLegacy(t, tls.VersionTLS12)
				_, ok := d.connect(t, s.addr)
				told(t, s, ok, `this listener wants TLS 1.2 or newer: set its min_version to "1.`)
			}
			s := startServer(t, func(o *Options, b *backend) {
				o.TLSMode, o.TLS = Implicit, ServerTLS(present(bothKinds()[0], bothKinds()[1]), tls.VersionTLS12)
			})
			_, ok := d.connect(t, s.addr)
			if d.standard == "" {
				if !ok {
					t.Error("a current client is refused")
				}
				return
			}
			told(t, s, ok, d.standard)
		})
	}
}

// told checks that a client was refused, and what was said of it.
func told(t *testing.T, s *testServer, taken bool, want string) {
	t.Helper()
	if taken {
		t.Fatal("it was taken")
	}
	eventually(t, "refusal", func() bool { return s.lastRefusal().Reason != "" })
	if r := s.lastRefusal(); r.Reason != ReasonTLS || !strings.Contains(r.Detail, want) {
		t.Errorf("refusal %s %q, want %q", r.Reason, r.Detail, want)
	}
}

// TestSameWithoutGODEBUG: the switches that Go 1.27 drops change nothing at a tolerant listener, nor at another.
func TestSameWithoutGODEBUG(t *testing.T) {
	for _, value := range []string{"0", "1"} {
		t.Setenv("GODEBUG", "tls10server="+value+",tlsrsakex="+value+",tls3des="+value)
		if said, ok := sClient(t, startLegacy(t, tls.VersionTLS10).addr,
			"-tls1 -cipher AES128-SHA:@SECLEVEL=0"); !ok {
			t.Errorf("%s: TLS 1.0 is not taken:\n%s", value, said)
		}
		s := startServer(t, func(o *Options, b *backend) {
			o.TLSMode, o.TLS = Implicit, ServerTLS(present(bothKinds()[1]), tls.VersionTLS12)
		})
		if _, ok := sClient(t, s.addr, "-tls1 -cipher ALL:@SECLEVEL=0"); ok {
			t.Errorf("%s: a standard listener takes TLS 1.0", value)
		}
	}
}

// TestSSL2Hello: the ClientHello of libraries that are older still is told in words wherever it may come.
func TestSSL2Hello(t *testing.T) {
	hello := append([]byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10}, make([]byte, 37)...)
	for _, mode := range []TLSMode{Implicit, Auto, STARTTLS} {
		s := startServer(t, func(o *Options, b *backend) {
			o.TLSMode, o.TLS = mode, LegacyTLS(present(bothKinds()[1]), tls.VersionTLS10)
		})
		c := s.dial(t)
		if mode == STARTTLS {
			c.expect("220 ")
			c.cmd("STARTTLS", "220 ")
		}
		c.send(string(hello))
		told(t, s, false, "SSL 2.0 ClientHello")
	}
}

// TestLegacySuites: what is listed is explicit, has what old devices need, and neither RC4 nor TLS 1.3, which Go
// always has.
func TestLegacySuites(t *testing.T) {
	c := LegacyTLS(nil, tls.VersionTLS10)
	found := map[uint16]bool{}
	for _, id := range c.CipherSuites {
		found[id] = true
	}
	for _, id := range []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} {
		if !found[id] {
			t.Errorf("%s is missing", tls.CipherSuiteName(id))
		}
	}
	if found[tls.TLS_RSA_WITH_RC4_128_SHA] || !c.SessionTicketsDisabled || c.MinVersion != tls.VersionTLS10 {
		t.Errorf("%+v", c)
	}
	if c := ServerTLS(nil, tls.VersionTLS12); !c.SessionTicketsDisabled || c.CipherSuites != nil {
		t.Errorf("%+v", c)
	}
}
