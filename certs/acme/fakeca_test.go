package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeCA is an ACME server that can be slow, rude and wrong, for what pebble does not do. It does not validate.
type fakeCA struct {
	mu       sync.Mutex // guards everything
	base     string
	key      *ecdsa.PrivateKey
	root     *x509.Certificate
	serial   int64
	lifetime time.Duration
	chain    []byte
	account  string
	seen     map[string]int // requests by path

	// What it does wrong.
	answer      func(w http.ResponseWriter, path string) bool // instead; true: it has answered
	identifier  string                                        // in authorizations
	token       string
	offered     []string
	badNonces   int
	invalid     string                         // why the challenge fails
	otherCSR    bool                           // certificates are for another key
	mangle      func(leaf, root []byte) []byte // makes the chain in PEM form of both in DER form
	window      [2]time.Time
	replaced    []string // what orders named
	beforeChain func()   // while a certificate is downloaded
}

// fakes counts them: acmez keeps directories by address, for all tests.
var fakes atomic.Int64

func newFakeCA(t *testing.T) *fakeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Fake"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(1e6 * time.Hour),
		SubjectKeyId: []byte{1, 2, 3}}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &fakeCA{base: fmt.Sprintf("https://ca%d.example.net", fakes.Add(1)), key: key, root: root,
		lifetime: 90 * 24 * time.Hour, seen: map[string]int{}}
}

func (f *fakeCA) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[path]
}

func (f *fakeCA) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := r.URL.Path
	f.seen[path]++
	f.serial++
	w.Header().Set("Replay-Nonce", fmt.Sprintf("nonce%d", f.serial))
	w.Header().Set("Content-Type", "application/json")
	if f.answer != nil && f.answer(w, path) {
		return
	}
	var jws struct{ Payload string }
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &jws)
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	if r.Method == http.MethodPost && f.badNonces > 0 {
		f.badNonces--
		problem(w, 400, "badNonce", "that nonce is wrong")
		return
	}
	f.serve(w, path, payload)
}

func problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail,
		"status": status})
}

func (f *fakeCA) serve(w http.ResponseWriter, path string, payload []byte) {
	say := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	order := map[string]any{"status": "ready", "authorizations": []string{f.base + "/authz"},
		"finalize": f.base + "/finalize"}
	switch {
	case path == "/dir":
		dir := map[string]any{"newNonce": f.base + "/nonce", "newAccount": f.base + "/account",
			"newOrder": f.base + "/order", "revokeCert": f.base + "/revoke",
			"meta": map[string]any{"caaIdentities": []string{"ca.example.net"}}}
		if !f.window[0].IsZero() {
			dir["renewalInfo"] = f.base + "/ari"
		}
		say(200, dir)
	case path == "/nonce":
		w.WriteHeader(200)
	case path == "/account":
		if strings.Contains(string(payload), `"onlyReturnExisting":true`) && f.account == "" {
			problem(w, 400, "accountDoesNotExist", "who?")
			return
		}
		if f.account == "" {
			f.account = fmt.Sprintf("%s/acct/%d", f.base, f.serial)
		}
		w.Header().Set("Location", f.account)
		say(201, map[string]any{"status": "valid"})
	case path == "/order":
		var o struct {
			Replaces    string
			Identifiers []struct{ Value string }
		}
		_ = json.Unmarshal(payload, &o)
		f.replaced = append(f.replaced, o.Replaces)
		if f.identifier == "" && len(o.Identifiers) == 1 {
			f.identifier = o.Identifiers[0].Value
		}
		w.Header().Set("Location", f.base+"/order/1")
		order["status"] = "pending"
		say(201, order)
	case path == "/authz":
		say(200, f.authorization())
	case strings.HasPrefix(path, "/challenge/"):
		say(200, map[string]any{"type": path[len("/challenge/"):], "status": "processing"})
	case path == "/finalize":
		f.issue(payload)
		order["status"], order["certificate"] = "valid", f.base+"/cert"
		say(200, order)
	case path == "/cert":
		if f.beforeChain != nil {
			f.beforeChain()
		}
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(f.chain)
	case strings.HasPrefix(path, "/ari/"):
		w.Header().Set("Retry-After", "21600")
		say(200, map[string]any{"suggestedWindow": map[string]any{"start": f.window[0], "end": f.window[1]}})
	default:
		problem(w, 404, "malformed", "there is no "+path)
	}
}

// authorization becomes valid, or invalid, once the challenge was begun.
func (f *fakeCA) authorization() map[string]any {
	offered, token, status := f.offered, f.token, "pending"
	if offered == nil {
		offered = []string{HTTP01, TLSALPN01, DNS01, Persist01}
	}
	if token == "" {
		token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJyPCt92wr-oA"
	}
	var all []map[string]any
	for _, kind := range offered {
		c := map[string]any{"type": kind, "url": f.base + "/challenge/" + kind, "token": token, "status": status}
		if kind == Persist01 {
			delete(c, "token")
			c["issuer-domain-names"] = []string{"ca.example.net"}
		}
		if f.seen["/challenge/"+kind] > 0 {
			status = "valid"
			f.seen["/challenge/"+kind]--
			f.seen["validated"]++
			if f.invalid != "" {
				status = "invalid"
				c["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": f.invalid}
			}
		}
		all = append(all, c)
	}
	return map[string]any{"status": status, "challenges": all,
		"identifier": map[string]string{"type": "dns", "value": f.identifier}}
}

func (f *fakeCA) issue(payload []byte) {
	var in struct{ CSR string }
	_ = json.Unmarshal(payload, &in)
	der, _ := base64.RawURLEncoding.DecodeString(in.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		panic(err)
	}
	public := csr.PublicKey
	if f.otherCSR {
		public = f.key.Public()
	}
	f.serial++
	leaf := &x509.Certificate{SerialNumber: big.NewInt(f.serial), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(f.lifetime),
		AuthorityKeyId: []byte{1, 2, 3}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	made, err := x509.CreateCertificate(rand.Reader, leaf, f.root, public, f.key)
	if err != nil {
		panic(err)
	}
	f.seen["issued"]++
	f.chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.root.Raw})...)
	if f.mangle != nil {
		f.chain = f.mangle(made, f.root.Raw)
	}
}
