//go:build unix

// Command signature prints the median time of an RSA-2048 signature, by what it was built to sign with: crypto/rsa, or
// with the build tag openssl libcrypto. bench/run calls it.
package main

import (
	"fmt"
	"os"

	"postern/bench/run"
)

func main() {
	took, err := run.Signature()
	if err != nil {
		fmt.Fprintln(os.Stderr, "signature:", err)
		os.Exit(1)
	}
	fmt.Println(took)
}
