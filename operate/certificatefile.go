package operate

import (
	"bytes"
	"context"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"postern/certs/acme"
	"postern/mail"
)

// Form is how a certificate is written into a file.
type Form string

// The forms. PEM has the certificate and those of its authorities; DER has one: the topmost of these, which is what a
// device is told to trust. Of a self-signed certificate that is itself.
const (
	PEM Form = "pem"
	DER Form = "der"
)

// CertificateFile is the public part of a certificate.
type CertificateFile struct {
	Name string // of the file: "relay.example.com.pem"
	Data []byte
}

// File returns a certificate of the listeners for devices that have to be told to trust it. which is its SHA-256 in
// hexadecimal digits, or a name that it covers; "" is the first that there is. It holds no key.
func (c Certificates) File(ctx context.Context, by Actor, which string, form Form) (f CertificateFile, err error) {
	if err := by.May(SeeCertificates); err != nil {
		return f, err
	}
	all, err := c.look(ctx, time.Now())
	if err != nil {
		return f, err
	}
	i := slices.IndexFunc(all, func(one seenCertificate) bool { return len(one.chain) > 0 && one.is(which) })
	if i < 0 {
		return f, fault(NotFound, "there is no certificate for %q; those that there are: postern cert list",
			mail.Printable(mail.Cut(which, maxNamed)))
	}
	chain := all[i].chain
	switch form {
	case DER:
		f.Data = chain[len(chain)-1].Raw
	case PEM:
		var b bytes.Buffer
		for _, one := range chain {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: one.Raw}) // a Buffer takes everything
		}
		f.Data = b.Bytes()
	default:
		return f, fault(Invalid, "%q is no form of a certificate, there are pem and der",
			mail.Printable(mail.Cut(string(form), maxNamed)))
	}
	name := "certificate"
	if len(all[i].Names) > 0 {
		name = all[i].Names[0]
	}
	f.Name = fileName(name) + "." + string(form)
	return f, nil
}

// is reports whether somebody means it.
func (c *Certificate) is(which string) bool {
	name := strings.ToLower(strings.TrimSuffix(which, "."))
	return which == "" || c.Name == name || slices.Contains(c.Names, name) ||
		strings.EqualFold(plainDigits(c.Fingerprint), plainDigits(which))
}

func plainDigits(fingerprint string) string { return strings.ReplaceAll(fingerprint, ":", "") }

// fileName is a name of a file that every system takes.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, mail.Cut(strings.Trim(name, "."), 100))
}

// NeedsRecords reports that a person has to publish records for the challenges of [tls.acme].
func (c Certificates) NeedsRecords() bool {
	a := c.Config().TLS.ACME
	return a != nil && (slices.Contains(a.Challenges, acme.Persist01) ||
		slices.Contains(a.Challenges, acme.DNS01) && a.AcmeDNS != nil)
}
