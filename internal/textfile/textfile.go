// Package textfile reads what people write with editors: relay.toml, secrets, keys and certificates. Windows
// editors add a byte order mark or save UTF-16; neither may become part of a password or hide a certificate.
package textfile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"postern/internal/rights"
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

// Error is why a file cannot be used.
type Error struct {
	Path string
	Msg  string // what is wrong, and what to do
}

// Error returns "path message".
func (e *Error) Error() string { return e.Path + " " + e.Msg }

// Bounded is Read for a regular file of at most limit octets; others could block or never end. Its errors are *Error.
func Bounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, Unusable(path, err)
	case !info.Mode().IsRegular():
		return nil, &Error{path, "is not a regular file, write the path of one"}
	case info.Size() > limit:
		return nil, &Error{path, fmt.Sprintf("has %d octets, more than the %d allowed here: is it the right file?",
			info.Size(), limit)}
	}
	b, err := os.ReadFile(path)
	if err == nil {
		b, err = Text(b)
	}
	if err != nil {
		return nil, Unusable(path, err)
	}
	return b, nil
}

// Unusable says in plain words why a file cannot be used.
func Unusable(path string, err error) error {
	msg := "cannot be read: "
	pathError, _ := errors.AsType[*fs.PathError](err)
	switch {
	case err == ErrUTF16:
		msg = err.Error()
	case errors.Is(err, fs.ErrNotExist):
		msg = "does not exist, create it or correct the path"
	case errors.Is(err, fs.ErrPermission):
		msg = fmt.Sprintf("cannot be read by the user that runs this command (%s), change its owner or group",
			rights.Me())
	case pathError != nil:
		msg += pathError.Err.Error()
	default:
		msg += err.Error()
	}
	return &Error{path, msg}
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
