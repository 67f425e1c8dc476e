package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"postern/operate"
)

// maxCertificateFile bounds a file with a certificate, in octets.
const maxCertificateFile = 1 << 20

// certificateFlags are those of an account's keys.
type certificateFlags struct {
	file string
	none bool
}

func (f *certificateFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "certificate", "",
		"`file` (PEM) of a client certificate whose key proves this login, beside those that do already")
	cmd.Flags().BoolVar(&f.none, "no-certificate", false, "no key proves this login any more")
}

func (f *certificateFlags) asked() bool { return f.file != "" || f.none }

func (f *certificateFlags) check() error {
	if f.file != "" && f.none {
		return errors.New("--certificate and --no-certificate exclude each other")
	}
	return nil
}

// apply returns what is new, in words.
func (f *certificateFlags) apply(cmd *cobra.Command, ops *operate.Operations, of accounts, login string) (
	[]string, error) {
	switch {
	case f.none:
		n, err := ops.ClientCertificates.Unpin(cmd.Context(), me(), of.among, login)
		if err != nil || n == 0 {
			return nil, err
		}
		return []string{fmt.Sprintf("certificates: none (%d removed)", n)}, nil
	case f.file != "":
		text, err := readCertificateFile(f.file)
		if err != nil {
			return nil, err
		}
		c, err := ops.ClientCertificates.Pin(cmd.Context(), me(), of.among, login, text)
		if err != nil {
			return nil, err
		}
		return []string{fmt.Sprintf("certificate: the key %s (%s) proves it", c.Digest, c.Subject)}, nil
	}
	return nil, nil
}

func readCertificateFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCertificateFile+1))
	if err == nil && len(text) > maxCertificateFile {
		err = fmt.Errorf("%s is longer than %s: that is no certificate", path, size(maxCertificateFile))
	}
	return text, err
}
