package ldap

import "testing"

// NewActiveDirectory starts a server that answers as Active Directory does, for tests outside this package. It returns
// its address and the authority of its certificate.
func NewActiveDirectory(t *testing.T) (url string, ca []byte) {
	f := newFake(t)
	return f.url, f.ca.PEM
}
