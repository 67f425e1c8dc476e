// Package textfile reads what people write with editors: relay.toml, secrets, keys and certificates. Editors of Windows
// put a byte order mark in front, or save UTF-16; neither may become part of a password, or hide a certificate.
package textfile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
)

// ErrUTF16 says what to do about a file that another encoding was chosen for.
var ErrUTF16 = errors.New(`is saved as UTF-16 ("Unicode"): save it as UTF-8 in the editor`)

var (
	utf8Mark    = []byte("\xef\xbb\xbf")
	utf16Little = []byte("\xff\xfe")
	utf16Big    = []byte("\xfe\xff")
)

// Text returns the octets of a file without a byte order mark. UTF-16, with its mark or seen by the NUL in every other
// octet of its beginning, is ErrUTF16.
func Text(b []byte) ([]byte, error) {
	if bytes.HasPrefix(b, utf16Little) || bytes.HasPrefix(b, utf16Big) {
		return nil, ErrUTF16
	}
	if len(b) >= 4 && (b[0] == 0 && b[1] != 0 && b[2] == 0 && b[3] != 0 || b[0] != 0 && b[1] == 0 && b[2] != 0 &&
		b[3] == 0) {
		return nil, ErrUTF16
	}
	return bytes.TrimPrefix(b, utf8Mark), nil
}

// Read is os.ReadFile and Text.
func Read(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if b, err = Text(b); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return b, nil
}

// KeyPair is tls.LoadX509KeyPair for such files.
func KeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := Read(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := Read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
