package ldap

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// folded is the one spelling of all those that a directory takes for the same (RFC 4518): letters in lower case and in
// their plain form, single blanks, and nothing that is not seen. A login that is not as the directory has it in any
// attribute is counted under this name.
func folded(login string) string {
	s := strings.Map(func(r rune) rune {
		if r == '\u034f' || unicode.In(r, unicode.Cf, unicode.Variation_Selector) {
			return -1
		}
		return r
	}, strings.ToLower(norm.NFKC.String(login)))
	if s = strings.Join(strings.Fields(norm.NFKC.String(s)), " "); s == "" {
		return login
	}
	return s
}
