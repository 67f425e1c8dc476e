package auth

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a password or a hash of one. It is a string for those who convert it on purpose; every
// way of printing, logging or marshalling it gives a placeholder (but for one of package fmt's: a verb
// that does not fit a pointer inside a struct prints what is behind it raw; vet finds those). Note that
// this includes JSON: a store that keeps it must convert with string(s).
type Secret string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// Format implements fmt.Formatter: a verb that does not fit would print the value past String.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		io.WriteString(f, s.GoString())
		return
	}
	io.WriteString(f, s.String())
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, and thereby JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
