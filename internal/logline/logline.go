// Package logline shortens log lines: it leaves out empty values and repetitions.
package logline

import (
	"strings"

	"postern/mail"
)

// Pairs returns keys and values for a logger, without empty and nil values. It overwrites its arguments.
func Pairs(pairs ...any) []any {
	kept := pairs[:0]
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := pairs[i+1]; v == nil || v == "" {
			continue
		}
		kept = append(kept, pairs[i], pairs[i+1])
	}
	return kept
}

// Beside returns the part of a text that a reply on the same line does not say already, or "".
func Beside(reply mail.Reply, text string) string {
	said := reply.String()
	if said == "" || text == "" {
		return text
	}
	for _, known := range []string{said, reply.Text} {
		if known == "" {
			continue
		}
		if rest, ok := strings.CutPrefix(text, known); ok {
			return strings.TrimLeft(rest, ":; ")
		}
		if rest, ok := strings.CutSuffix(text, known); ok {
			return strings.TrimRight(rest, ":; ")
		}
	}
	if strings.Contains(said, text) {
		return ""
	}
	return text
}

// Error is Beside for an error, which may be nil.
func Error(reply mail.Reply, err error) string {
	if err == nil {
		return ""
	}
	return Beside(reply, err.Error())
}
