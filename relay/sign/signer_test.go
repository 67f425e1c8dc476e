package sign

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// What signs is a matter of the build (Implementation): these tests, as all of the package, are run for both, and
// hold both to the same octets.

var digest = sha256.Sum256([]byte("a canonical header"))

// TestSizesOfKeys has keys of every size verified by both verifiers.
func TestSizesOfKeys(t *testing.T) {
	keys := []Key{key(t, "rsa-1024", "a"), key(t, "rsa", "b"), key(t, "rsa-3072", "c"), key(t, "rsa-4096", "d"),
		key(t, "rsa-pkcs1", "e"), key(t, "ed25519", "f")}
	txt, signed := zone(t, keys), signed1(t, message, keys, Options{})
	if errs := verify(t, signed, txt); len(errs) != len(keys) || errors.Join(errs...) != nil {
		t.Errorf("go-msgauth: %v", errs)
	}
	said := pythonSays(t, map[string][]byte{"m": signed}, txt)
	if strings.Count(said, " True\n") != len(keys) {
		t.Errorf("python3-dkim: %s", said)
	}
}

// TestSignaturesAreThoseOfGo: PKCS #1 v1.5 leaves no choice, so whatever signs makes the octets that crypto/rsa makes.
func TestSignaturesAreThoseOfGo(t *testing.T) {
	plain := rsaKey(t, goodBits)
	signer, err := newSigner(plain)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		digest := sha256.Sum256(fmt.Append(nil, i))
		want, err := rsa.SignPKCS1v15(nil, plain, crypto.SHA256, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := signer.Sign(nil, digest[:], crypto.SHA256); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%x, %v; want %x", got, err, want)
		}
	}
}

// TestSignersAtOnce: one key is used by many goroutines, while others are loaded, used and forgotten.
func TestSignersAtOnce(t *testing.T) {
	shared := key(t, "rsa", "s").Signer
	want, err := shared.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/rsa.pem")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			for i := range 8 {
				signer := shared
				if n%4 == 0 {
					own, err := ParseKey(text)
					if err != nil {
						t.Error(err)
						return
					}
					signer = own
					if i%4 == 0 {
						runtime.GC()
					}
				}
				if got, err := signer.Sign(nil, digest[:], crypto.SHA256); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%x, %v; want %x", got, err, want)
				}
			}
		})
	}
	all.Wait()
}

// TestDamagedKey: a key with one wrong octet is refused, or signs nothing, or signs for its own public key.
func TestDamagedKey(t *testing.T) {
	text, err := os.ReadFile("testdata/rsa-1024.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	outcomes := make(map[string]int)
	for i := range block.Bytes {
		der := bytes.Clone(block.Bytes)
		der[i] ^= 1 << (i % 8)
		signer, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}))
		if err != nil {
			outcomes["refused"]++
			continue
		}
		signature, err := signer.Sign(nil, digest[:], crypto.SHA256)
		if err != nil {
			outcomes["does not sign"]++
			continue
		}
		public, isRSA := signer.Public().(*rsa.PublicKey)
		if !isRSA || rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) != nil {
			t.Errorf("octet %d: a signature that does not verify", i)
		}
		outcomes["signs"]++
	}
	if outcomes["refused"] < len(block.Bytes)*9/10 {
		t.Errorf("damaged keys: %v", outcomes)
	}
}
