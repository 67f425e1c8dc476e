package run

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"slices"
	"time"

	"postern/internal/testkit/pki"
)

// signature is what one RSA-2048 signature takes here and now, the median of some, while the machine does nothing else. It is most
// of what a message costs us, and differs between machines, and between minutes of one that others share.
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
