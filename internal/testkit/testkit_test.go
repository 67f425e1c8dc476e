//go:build unix

package testkit

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postern/internal/testkit/pki"
)

func handshake(t *testing.T, ca *CA, c Cert, name string) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.Server())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			io.Copy(io.Discard, conn) // does the handshake
			conn.Close()
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), ca.Client(name))
	if err == nil {
		conn.Close()
	}
	<-done
	return err
}

func TestCertificates(t *testing.T) {
	ca := NewCA(t)
	for _, tt := range []struct {
		name string
		cert Cert
		want string
	}{
		{"ecdsa", ca.Leaf(LeafOptions{}), ""},
		{"rsa", ca.Leaf(LeafOptions{Key: RSA}), ""},
		{"expired", ca.Expired(), "expired"},
		{"wrong name", ca.WrongName(), "not localhost"},
		{"other authority", NewCA(t).Leaf(LeafOptions{}), "unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := handshake(t, ca, tt.cert, "localhost")
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("handshake: %v, want %q", err, tt.want)
			}
			if _, err := tls.LoadX509KeyPair(tt.cert.CertFile, tt.cert.KeyFile); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNeed(t *testing.T) {
	if path := Need(t, "go"); path == "" {
		t.Error("go was not found")
	}
	t.Run("missing is a skip", func(t *testing.T) {
		t.Setenv("CI", "")
		probe := &recorder{TB: t}
		probe.run(func() { Need(probe, "no-such-tool-anywhere") })
		if !probe.skipped || probe.failed {
			t.Errorf("skipped %t, failed %t", probe.skipped, probe.failed)
		}
	})
	t.Run("missing under CI is a failure", func(t *testing.T) {
		t.Setenv("CI", "true")
		probe := &recorder{TB: t}
		probe.run(func() { Need(probe, "no-such-tool-anywhere") })
		if probe.skipped || !probe.failed {
			t.Errorf("skipped %t, failed %t", probe.skipped, probe.failed)
		}
	})
}

// recorder is a testing.TB that notes how a helper ended the test.
type recorder struct {
	testing.TB
	skipped, failed bool
}

type stopped struct{}

func (r *recorder) Skipf(string, ...any)  { r.skipped = true; panic(stopped{}) }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(stopped{}) }

func (r *recorder) run(f func()) {
	defer func() {
		if v := recover(); v != nil && v != (stopped{}) {
			panic(v)
		}
	}()
	f()
}

func TestProcess(t *testing.T) {
	sh := Need(t, "sh")
	t.Run("submatch", func(t *testing.T) {
		p := Start(t, nil, sh, "-c", `echo first; echo "listening on 127.0.0.1:25"; exec sleep 60`)
		if m := p.WaitLog(`listening on (\S+)`); m[1] != "127.0.0.1:25" {
			t.Errorf("submatch %q", m)
		}
		p.Kill()
		if err := syscall.Kill(p.Pid(), 0); err != syscall.ESRCH {
			t.Errorf("process is still there: %v", err)
		}
	})
	t.Run("stop", func(t *testing.T) {
		p := Start(t, nil, sh, "-c", `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done`)
		p.WaitLog("ready")
		p.Stop()
		if !strings.Contains(p.Log(), "bye") {
			t.Errorf("log %q", p.Log())
		}
	})
	t.Run("cleanup kills", func(t *testing.T) {
		var p *Process
		t.Run("inner", func(t *testing.T) { p = Start(t, nil, sh, "-c", "exec sleep 60") })
		if err := p.Wait(time.Second); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("after the test: %v", err)
		}
	})
}

func TestVerifyDKIM(t *testing.T) {
	key, err := pki.RSAKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	txt := map[string]string{"s._domainkey.example.com": "v=DKIM1; k=rsa; p=" +
		base64.StdEncoding.EncodeToString(public)}
	plain := "From: a@example.com\r\nSubject: hello\r\n\r\nbody\r\n"
	var signed strings.Builder
	err = dkim.Sign(&signed, strings.NewReader(plain), &dkim.SignOptions{Domain: "example.com", Selector: "s",
		Signer: key, HeaderKeys: []string{"From", "Subject"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, message, want string
		txt                 map[string]string
		ok                  bool
	}{
		{"good", signed.String(), "d=example.com", txt, true},
		{"no signature", plain, "no DKIM-Signature", txt, false},
		{"changed body", signed.String() + "more\r\n", "signature 0", txt, false},
		{"no key in DNS", signed.String(), "signature 0", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out := VerifyDKIM(t, []byte(tt.message), tt.txt); out.OK != tt.ok ||
				!strings.Contains(out.Text, tt.want) {
				t.Errorf("%+v", out)
			}
		})
	}
}
