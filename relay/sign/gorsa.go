//go:build !openssl

package sign

import (
	"crypto"
	"crypto/rsa"
)

// Implementation names what computes RSA signatures. The build tag openssl takes libcrypto.
func Implementation() string { return "go crypto/rsa" }

// newSigner returns the key itself: crypto/rsa checks each signature with the public key.
func newSigner(k *rsa.PrivateKey) (crypto.Signer, error) { return k, nil }
