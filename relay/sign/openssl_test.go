//go:build openssl

package sign

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"encoding/asn1"
	"math/big"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"postern/mail"
)

// pkcs1 is an RSA private key as RFC 8017 §A.1.2 has it.
type pkcs1 struct {
	Version               int
	N                     *big.Int
	E                     int
	D, P, Q, DP, DQ, QInv *big.Int
}

// faulty is a key that libcrypto takes, but whose private part computes wrong signatures, as a machine does whose
// memory or processor fails, or those of another public key.
func faulty(t *testing.T, public *rsa.PublicKey, spoil func(*pkcs1)) *opensslKey {
	t.Helper()
	k := rsaKey(t, leastBits)
	k.Precompute()
	parts := pkcs1{0, k.N, k.E, k.D, k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}
	spoil(&parts)
	der, err := asn1.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	if public == nil {
		public = &k.PublicKey
	}
	s, err := loadDER(der, public)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFaultOfOpenSSLIsCaught(t *testing.T) {
	off := func(n *big.Int) *big.Int { return new(big.Int).Sub(n, big.NewInt(2)) }
	for name, s := range map[string]*opensslKey{
		"none":                faulty(t, nil, func(*pkcs1) {}),
		"all exponents":       faulty(t, nil, func(k *pkcs1) { k.D, k.DP, k.DQ = off(k.D), off(k.DP), off(k.DQ) }),
		"another public key":  faulty(t, &rsaKey(t, leastBits).PublicKey, func(*pkcs1) {}),
		"a larger public key": faulty(t, &rsaKey(t, goodBits).PublicKey, func(*pkcs1) {}),
	} {
		signature, err := s.Sign(nil, digest[:], crypto.SHA256)
		if name == "none" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if signature != nil || err == nil || !strings.Contains(err.Error(),
			"wrong signature, which is not used: EVP_PKEY_verify: ") {
			t.Errorf("%s: %x, %v", name, signature, err)
		}
		k := Key{Domain: "example.com", Selector: "s", Signer: s}
		fields, err := Sign(mail.BytesContent(message), []Key{k}, time.Now(), Options{})
		if err == nil || fields != nil {
			t.Errorf("%s: the message is signed: %s, %v", name, fields, err)
		}
		if _, err := CheckKey(k); err == nil {
			t.Errorf("%s: the key is accepted", name)
		}
	}
}

// TestErrorsOfOpenSSL: they say which step failed and what libcrypto says of it, and do not stay for the next call.
func TestErrorsOfOpenSSL(t *testing.T) {
	runtime.LockOSThread() // which libcrypto keeps errors by
	defer runtime.UnlockOSThread()
	good := key(t, "rsa", "s").Signer.(*opensslKey)
	for _, der := range [][]byte{nil, {}, []byte("x"), bytes.Repeat([]byte{0x30}, 1000)} {
		if _, err := loadDER(der, good.public); err == nil || !strings.Contains(err.Error(), "d2i_PrivateKey: error:") {
			t.Errorf("%q: %v", der, err)
		}
	}
	small := &opensslKey{private: good.private, verifier: good.verifier, public: &rsaKey(t, leastBits).PublicKey}
	if _, err := small.Sign(nil, digest[:], crypto.SHA256); err == nil || !strings.Contains(err.Error(),
		"EVP_PKEY_sign: error:") || strings.Contains(err.Error(), "asn1") { // that of a key before

		t.Errorf("into less room than a signature takes: %v", err)
	}
	runtime.KeepAlive(good)
	for _, c := range []struct {
		digest []byte
		opts   crypto.SignerOpts
	}{{digest[:31], crypto.SHA256}, {nil, crypto.SHA256}, {digest[:], crypto.SHA512}, {digest[:], crypto.Hash(0)},
		{digest[:], &rsa.PSSOptions{Hash: crypto.SHA256}}} {
		if _, err := good.Sign(nil, c.digest, c.opts); err == nil {
			t.Errorf("%d octets with %v are signed", len(c.digest), c.opts)
		}
	}
	if _, err := good.Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Errorf("after errors: %v", err)
	}
	if name := Implementation(); !strings.HasPrefix(name, "openssl 3.") {
		t.Errorf("it is %q", name)
	}
}

// TestKeysAreFreed: keys that nothing refers to leave libcrypto's memory too, both halves, used or not.
func TestKeysAreFreed(t *testing.T) {
	text, err := os.ReadFile("testdata/rsa-1024.pem")
	if err != nil {
		t.Fatal(err)
	}
	collect := func() int64 { // cleanups run some time after it
		runtime.GC()
		return halves.Load()
	}
	before, keys := collect(), make([]crypto.Signer, 500)
	for i := range keys {
		s, err := ParseKey(text)
		if err == nil && i%2 == 0 {
			_, err = s.Sign(nil, digest[:], crypto.SHA256)
		}
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = s
	}
	if n := halves.Load(); n < int64(2*len(keys)) {
		t.Errorf("%d halves of %d keys are counted", n, len(keys))
	}
	clear(keys)
	for deadline := time.Now().Add(time.Minute); collect() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d halves of keys are there, %d were before", halves.Load(), before)
		}
	}
}

// TestSignaturesAtOnce: while as many are made as may be, the next one waits.
func TestSignaturesAtOnce(t *testing.T) {
	signer := key(t, "rsa", "s").Signer
	for range cap(signing) {
		signing <- struct{}{}
	}
	done := make(chan error, 1)
	go func() {
		_, err := signer.Sign(nil, digest[:], crypto.SHA256)
		done <- err
	}()
	waits := func() bool {
		all := make([]byte, 1<<20)
		for one := range bytes.SplitSeq(all[:runtime.Stack(all, true)], []byte("\n\n")) {
			if bytes.Contains(one, []byte("[chan send")) && bytes.Contains(one, []byte("opensslKey).Sign")) {
				return true
			}
		}
		return false
	}
	for !waits() {
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		default:
			runtime.Gosched()
		}
	}
	for range cap(signing) {
		<-signing
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
