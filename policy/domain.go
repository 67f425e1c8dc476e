package policy

import (
	"strings"

	"postern/mail"
)

func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.Map(func(r rune) rune {
				if r >= 'A' && r <= 'Z' {
					return r + 'a' - 'A'
				}
				return r
			}, s)
		}
	}
	return s
}

// folded is an address in the form in which addresses are compared.
func folded(a mail.Address) mail.Address {
	return mail.Address{Local: lowerASCII(a.Local), Domain: mail.ALabels(a.Domain)}
}

// RecipientKey returns the form of an address in which new recipients are told from known ones.
func RecipientKey(a mail.Address) string { return folded(a).String() }
