package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"postern/operate"
)

// certificateFlags are those of an account's keys.
type certificateFlags struct {
	file   string
	key    string // SHA-256
	remove string // SHA-256 of one of them
	none   bool
}

func (f *certificateFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "certificate", "",
		"`file` (PEM) of a client certificate or public key that proves this login, beside those that do already")
	cmd.Flags().StringVar(&f.key, "key", "", "`SHA-256` of a client's public key that proves this login, in "+
		"hexadecimal digits")
	cmd.Flags().StringVar(&f.remove, "remove-key", "", "`SHA-256` of a key that proves this login no more")
	cmd.Flags().BoolVar(&f.none, "no-certificate", false, "no key proves this login any more")
}

func (f *certificateFlags) asked() bool { return f.chosen() > 0 }

// chosen is how many of the flags were given.
func (f *certificateFlags) chosen() (n int) {
	for _, given := range []bool{f.file != "", f.key != "", f.remove != "", f.none} {
		if given {
			n++
		}
	}
	return n
}

func (f *certificateFlags) check() error {
	if f.chosen() > 1 {
		return errors.New("--certificate, --key, --remove-key and --no-certificate exclude each other")
	}
	return nil
}

// apply returns what is new, in words.
func (f *certificateFlags) apply(cmd *cobra.Command, ops *operate.Operations, of accounts, login string) (
	[]string, error) {
	text := []byte(f.key)
	switch {
	case f.none:
		n, err := ops.ClientCertificates.Unpin(cmd.Context(), me(), of.among, login)
		if err != nil || n == 0 {
			return nil, err
		}
		return []string{fmt.Sprintf("certificates: none (%d removed)", n)}, nil
	case f.remove != "":
		if err := ops.ClientCertificates.UnpinKey(cmd.Context(), me(), of.among, login, f.remove); err != nil {
			return nil, err
		}
		return []string{"certificate: the key " + f.remove + " proves it no more"}, nil
	case f.file != "":
		var err error
		if text, err = readCertificateFile(f.file); err != nil {
			return nil, err
		}
	case f.key == "":
		return nil, nil
	}
	c, err := ops.ClientCertificates.Pin(cmd.Context(), me(), of.among, login, text)
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("certificate: the key %s (%s) proves it", c.Digest, c.Subject)}, nil
}

func readCertificateFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, operate.MaxPin+1))
	if err == nil && len(text) > operate.MaxPin {
		err = fmt.Errorf("%s is longer than %s: that is no certificate", path, size(operate.MaxPin))
	}
	return text, err
}
