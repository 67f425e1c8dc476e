package policy

import "postern/mail"

// folded returns the form in which addresses are compared.
func folded(a mail.Address) mail.Address {
	return mail.Address{Local: mail.LowerASCII(a.Local), Domain: mail.ALabels(a.Domain)}
}

// RecipientKey returns the form of an address by which known recipients are recognised.
func RecipientKey(a mail.Address) string { return folded(a).String() }
