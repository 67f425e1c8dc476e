//go:build unix

package run

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/relay/sign"
)

// Signature returns the median time of an RSA-2048 signature as this program's build makes it (sign.Implementation),
// best measured on the idle machine. It differs between machines, and over time on a shared one.
func Signature() (time.Duration, error) {
	pem, err := dkimKey()
	if err != nil {
		return 0, err
	}
	key, err := sign.ParseKey(pem)
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("a canonical header"))
	var took []time.Duration
	for range 300 {
		begin := time.Now()
		if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// signature is that of a system, by the program that BuildOpenSSL has put beside its binary, or our own. 0: it does
// not sign, or by other means.
func signature(s System) (time.Duration, error) {
	p, ours := s.(*Postern)
	if !ours || p.Unsigned {
		return 0, nil
	}
	if !p.OpenSSL {
		return Signature()
	}
	out, err := output(exec.Command(filepath.Join(filepath.Dir(p.Binary), "signature")))
	if err != nil {
		return 0, err
	}
	took, err := time.ParseDuration(strings.TrimSpace(out))
	if err != nil {
		return 0, fmt.Errorf("signature: %w", err)
	}
	return took, nil
}
