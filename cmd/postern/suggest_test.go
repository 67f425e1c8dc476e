package main

import (
	"errors"
	"strings"
	"testing"
)

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.ok("user", "add", "anna@example.com")
	for line, want := range map[string]string{
		"sevre":                                "postern serve?",
		"SERVE":                                "postern serve?",
		"tarce":                                "postern trace?",
		"users list":                           "postern user?",
		"user lsit":                            "postern user list?",
		"user delete anna@example.com":         "postern user remove?",
		"user edit anna@example.com":           "postern user set?",
		"user pass anna@example.com":           "postern user password?",
		"queue lst":                            "postern queue list?",
		"dkim ad example.com":                  "postern dkim add?",
		"upstream profile":                     "postern upstream profiles?",
		"import x.csv":                         "postern user import?",
		"list":                                 "postern user list",
		"user list --jsno":                     "--json?",
		"user list --confg x":                  "--config?",
		"user add b@example.com --sendr x":     "--sender?",
		"serve --wdie":                         "--wide?",
		"user lock ana@example.com":            "anna@example.com?",
		"user unlock ana@example.com":          "anna@example.com?",
		"user remove anna@exmaple.com":         "anna@example.com?",
		"user password anna@example.co":        "anna@example.com?",
		"trace --login anna@exampel.com":       "anna@example.com?",
		"trace --kind acepted":                 "accepted?",
		"queue list --login ana@example.com":   "anna@example.com?",
		"upstream test provder":                "provider?",
		"upstream login provder":               "provider?",
		"upstream judge 550 --upstream provdr": "provider?",
		"upstream profiles gmial":              "gmail?",
	} {
		out, errs, err := l.run(strings.Fields(line)...)
		said := out + errs
		if err != nil {
			said += err.Error()
		}
		if !strings.Contains(said, "did you mean") || !strings.Contains(said, want) {
			t.Errorf("%s: no %q in %s", line, want, said)
		}
	}
	for _, line := range []string{"xyzzy", "user xyzzy", "user list --xyzzy", "user lock xyzzy",
		"upstream test xyzzy"} {
		_, _, err := l.run(strings.Fields(line)...)
		if err == nil || strings.Contains(err.Error(), "did you mean") {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"sevre", "user lsit", "user list --jsno", "user"} {
		if _, _, err := l.run(strings.Fields(line)...); !errors.As(err, new(*usageError)) {
			t.Errorf("%s is not wrong usage: %v", line, err)
		}
	}
}
