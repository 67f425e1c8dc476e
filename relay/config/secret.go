package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"postern/auth"
	"postern/internal/dpapi"
	"postern/internal/rights"
	"postern/internal/textfile"
)

const redacted = "[secret]"

// maxSecret bounds what is read of a secret file, in octets: a token fits, a wrong path does no harm.
const maxSecret = 64 << 10

// Secret is a password or token: the literal, "env:NAME" for an environment variable, "file:PATH"
// for a file, relative to relay.toml, of which one line end at the end does not count, or "dpapi:…" for what
// `postern secret protect` sealed on Windows. However it is
// printed, logged or marshalled it shows as "[secret]"; Value is the only way to it.
//
// The text is behind a pointer because fmt reads the fields of a value for some verbs without asking
// its methods.
type Secret struct{ text *secretText }

type secretText struct {
	ref   string // as written
	value string
}

// UnmarshalText keeps the reference; the file or variable is read when the configuration is validated,
// so that commands which need no secret do not ask for one.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = &secretText{ref: string(text)}
	return nil
}

func (s Secret) ref() string {
	if s.text == nil {
		return ""
	}
	return s.text.ref
}

// Value returns the secret itself, "" when the key was not given or Validate has not read it.
func (s Secret) Value() string {
	if s.text == nil {
		return ""
	}
	return s.text.value
}

// IsSet reports whether the key was given, even as an empty text or one that could not be read.
func (s Secret) IsSet() bool { return s.text != nil }

// literal reports whether the secret stands in relay.toml itself: also one that every program of this machine can have
// Windows open.
func (s Secret) literal() bool {
	ref := s.ref()
	return ref != "" && !strings.HasPrefix(ref, "env:") && !strings.HasPrefix(ref, "file:")
}

// path returns the file that holds the secret, "" when none does.
func (s Secret) path(dir string) string {
	name, ok := strings.CutPrefix(s.ref(), "file:")
	if !ok || name == "" {
		return ""
	}
	return absolute(dir, name)
}

// resolve reads the secret, which Value then is. The error says what to write, calling it by what, and never what was
// read.
func (s Secret) resolve(dir, what string) error {
	value, err := s.lookUp(dir, what)
	if err == nil {
		s.text.value = value
	}
	return err
}

// read returns the value, and leaves the secret as it is: others may use it at the same time.
func (s Secret) read(dir, what string) (auth.Secret, error) {
	if value := s.Value(); value != "" {
		return auth.Secret(value), nil
	}
	value, err := s.lookUp(dir, what)
	return auth.Secret(value), err
}

func (s Secret) lookUp(dir, what string) (string, error) {
	if name, ok := strings.CutPrefix(s.ref(), "env:"); ok {
		return fromEnv(name, what)
	}
	if strings.HasPrefix(s.ref(), "file:") {
		return fromFile(s.path(dir), what)
	}
	if sealed, ok := strings.CutPrefix(s.ref(), dpapi.Prefix); ok {
		text, err := dpapi.Open(sealed)
		if err != nil {
			return "", fmt.Errorf("dpapi:… %w", err)
		}
		return usable(string(text), "the text in dpapi:…", what)
	}
	if s.ref() == "" {
		return "", fmt.Errorf(`is empty, write the %s, "env:NAME" or "file:PATH"`, what)
	}
	return usable(s.ref(), "the text in quotes", what)
}

func fromEnv(name, what string) (string, error) {
	if name == "" {
		return "", errors.New(`names no environment variable, write "env:NAME"`)
	}
	value, ok := os.LookupEnv(name)
	if !ok {
		return "", fmt.Errorf("environment variable %s is not set, set it where postern is started, name its file "+
			"with --env-file, or write file:PATH", name)
	}
	return usable(value, "environment variable "+name, what)
}

func fromFile(path, what string) (string, error) {
	if path == "" {
		return "", errors.New(`names no file, write "file:PATH"`)
	}
	if err := checkPrivate(path); err != nil {
		return "", err
	}
	data, err := textfile.Bounded(path, maxSecret)
	if err != nil {
		return "", err
	}
	return usable(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), path, what)
}

// usable refuses what no peer could take: SASL forbids NUL (RFC 4616 §2), and a line end is a slip. A byte order mark
// that an editor left in front is no part of it.
func usable(value, source, what string) (string, error) {
	value = strings.TrimPrefix(value, "\ufeff")
	if value == "" {
		return "", fmt.Errorf("%s is empty, put the %s there", source, what)
	}
	if strings.ContainsAny(value, "\x00\r\n") {
		return "", fmt.Errorf("%s has a line end or NUL inside, write the %s alone on one line", source, what)
	}
	return value, nil
}

// Format, and the methods below it, keep the secret out of every kind of output.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String returns a placeholder.
func (s Secret) String() string { return redacted }

// GoString returns a placeholder.
func (s Secret) GoString() string { return redacted }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns a placeholder.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// secret reads a secret that was written.
func (v *validator) secret(key string, s Secret, what string) {
	if !s.IsSet() {
		return
	}
	if err := s.resolve(v.dir(), what); err != nil {
		v.fail(key, "%s", err)
	}
}

// pair refuses a certificate without its key, and a key without its certificate. It reports whether both were written.
func (v *validator) pair(table, certName, cert, keyName, key string) bool {
	switch {
	case cert != "" && key == "":
		v.fail(join(table, certName), "has no %s beside it, write both or neither", keyName)
	case cert == "" && key != "":
		v.fail(join(table, keyName), "has no %s beside it, write both or neither", certName)
	}
	return cert != "" && key != ""
}

// checkPrivate refuses a file that every user of the machine can read.
func checkPrivate(path string) error {
	r, err := rights.Of(path)
	if err != nil {
		return textfile.Unusable(path, err)
	}
	if r.IsDir {
		return fmt.Errorf("%s is a directory, write the path of a file", path)
	}
	if r.AnyoneReads {
		return fmt.Errorf("%s can be read by every user of this machine (%s), run: %s", path, r,
			r.Command("o-rwx", path))
	}
	return nil
}

// absolute resolves a path of relay.toml against the directory that relay.toml is in.
func absolute(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
