package oauth

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/internal/testkit/pki"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/seal"
)

const (
	client  = "6731de76-14a6-49ae-97bc-6eba6914391e"
	secret  = "s3cr3t-client-secret"
	mailbox = "ann@example.com"
	scope   = "https://outlook.office.com/SMTP.Send"
)

func testKey() *rsa.PrivateKey {
	key, err := pki.RSAKey()
	if err != nil {
		panic(err)
	}
	return key
}

// fake is a provider that looks like Microsoft's, and knows the application as public and as confidential.
func fake(o fakeprovider.OAuthOptions) *fakeprovider.OAuth {
	o.Microsoft = true
	a := fakeprovider.NewOAuth(o)
	a.AddClient(fakeprovider.Client{ID: client})
	return a
}

func confidential(o fakeprovider.OAuthOptions) *fakeprovider.OAuth {
	a := fake(o)
	a.AddClient(fakeprovider.Client{ID: client, Secret: secret})
	return a
}

func appOptions(a *fakeprovider.OAuth) Options {
	return Options{
		Upstream: "office", Provider: Microsoft, Flow: ClientCredentials, Tenant: "contoso.onmicrosoft.com",
		ClientID: client, ClientSecret: NewSecret(secret), Transport: testkit.Transport(a),
		Jitter: func() float64 { return 0 },
	}
}

func personOptions(a *fakeprovider.OAuth, store GrantStore) Options {
	return Options{
		Upstream: "office", Provider: Microsoft, Flow: DeviceCode, Tenant: "contoso.onmicrosoft.com", ClientID: client,
		Transport: testkit.Transport(a), Grants: store, Sealer: testSealer(), Jitter: func() float64 { return 0 },
	}
}

func testSealer() *seal.Sealer {
	s, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	return s
}

func newSource(t *testing.T, o Options) *Source {
	t.Helper()
	s, err := NewSource(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// consented is a Source whose person has consented.
func consented(t *testing.T, a *fakeprovider.OAuth, o Options) *Source {
	t.Helper()
	s := newSource(t, o)
	putGrant(t, s, a.Consent(client, mailbox, scope, "offline_access"))
	return s
}

// putGrant stores a grant as of now, in place of what is there.
func putGrant(t *testing.T, s *Source, refresh string) {
	t.Helper()
	_, version, err := s.o.Grants.LoadGrant(t.Context(), s.o.Upstream)
	if err != nil && !errors.Is(err, ErrNoGrant) {
		t.Fatal(err)
	}
	if _, err := s.saveGrant(t.Context(), &grant{ClientID: s.o.ClientID, Refresh: refresh, Refreshed: time.Now()},
		version); err != nil {
		t.Fatal(err)
	}
}

func mustToken(t *testing.T, s *Source) Token {
	t.Helper()
	tok, err := s.Token(t.Context(), mailbox)
	if err != nil {
		t.Fatalf("Token: %v", err)
	}
	return tok
}

func wantFault(t *testing.T, err error, class mail.Class, code string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *Error", err)
	}
	if e.Class != class || e.Code != code || e.Cause == "" {
		t.Fatalf("%v %q %q; want %v %q", e.Class, e.Code, e.Cause, class, code)
	}
	if class == mail.AccountFault && e.Fix == "" {
		t.Fatalf("%v: a fault that a person mends names no fix", e)
	}
	return e
}

func wantRequests(t *testing.T, a *fakeprovider.OAuth, what string, want int) {
	t.Helper()
	if got := a.Requests(what); got != want {
		t.Fatalf("%d requests of %s, want %d", got, what, want)
	}
}

// pemPair is a self-signed certificate and its key.
func pemPair(t *testing.T, notAfter time.Time) (Secret, *x509.Certificate) {
	t.Helper()
	made, err := pki.SelfSigned(pki.Options{Key: pki.RSA, NotBefore: time.Unix(0, 0), NotAfter: notAfter})
	if err != nil {
		t.Fatal(err)
	}
	return NewSecret(string(made.CertPEM) + string(made.KeyPEM)), made.TLS.Leaf
}

func serviceAccountFile(t *testing.T) Secret {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(testKey())
	if err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "relay@project.iam.gserviceaccount.example", "private_key_id": "k1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"token_uri":   "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return NewSecret(string(file))
}

// flakyStore fails on demand, before or after it has written.
type flakyStore struct {
	*MemoryGrants
	mu       sync.Mutex
	failSave error
	skip     int  // saves that succeed first
	written  bool // fail after writing
}

func (f *flakyStore) fail(err error, skip int, written bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failSave, f.skip, f.written = err, skip, written
}

func (f *flakyStore) SaveGrant(ctx context.Context, upstream string, sealed []byte, version int64) (int64, error) {
	f.mu.Lock()
	err, written := f.failSave, f.written
	if err != nil && f.skip > 0 {
		f.skip--
		err = nil
	}
	f.mu.Unlock()
	if err != nil && !written {
		return 0, err
	}
	v, saveErr := f.MemoryGrants.SaveGrant(ctx, upstream, sealed, version)
	if err != nil {
		return 0, err
	}
	return v, saveErr
}

func textLogger(w *testkit.Log) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
