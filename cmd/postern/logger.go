package main

import (
	"fmt"
	"io"
	"log/slog"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"postern/relay/config"
)

// newLogger writes each record as one line in which nothing is invisible, whatever outsiders have written: neither
// controls nor marks that turn text around.
func newLogger(w io.Writer, c config.Log) *slog.Logger { return slog.New(newHandler(w, c, nil)) }

// newHandler is newLogger's, with slog's ReplaceAttr.
func newHandler(w io.Writer, c config.Log, replace func([]string, slog.Attr) slog.Attr) slog.Handler {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config.Load has checked it
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: replace}
	if c.Format == "json" {
		return slog.NewJSONHandler(visibleJSON{w}, o)
	}
	return slog.NewTextHandler(w, o) // which quotes what is not printable
}

// visibleJSON escapes in lines of JSON what is not printable and JSON lets stand: DEL, C1, direction marks. That is
// possible in strings only, and they mean the same. Each Write is one line.
type visibleJSON struct{ w io.Writer }

// Write implements io.Writer.
func (v visibleJSON) Write(line []byte) (int, error) {
	out := make([]byte, 0, len(line))
	for rest := line; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == '\n' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			out = append(out, rest[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default: // what is no UTF-8 becomes U+FFFD
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if _, err := v.w.Write(out); err != nil {
		return 0, err
	}
	return len(line), nil
}
