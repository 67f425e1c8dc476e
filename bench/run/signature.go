//go:build unix

package run

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"slices"
	"time"

	"postern/internal/testkit/pki"
)

// signature returns the median time of an RSA-2048 signature on the idle machine. It is most of a message's cost, and
// differs between machines, and over time on a shared one.
func signature() (time.Duration, error) {
	key, err := pki.RSAKey()
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("a canonical header"))
	var took []time.Duration
	for range 300 {
		begin := time.Now()
		if _, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:]); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
