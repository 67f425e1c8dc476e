package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"
)

// Issued is a certificate that was obtained from an authority by ACME.
type Issued struct {
	Name        string // the host name that it is for
	Certificate tls.Certificate
}

// File is the name of an issued certificate where others have that of a file.
func (i Issued) File() string {
	return fmt.Sprintf("acme:%s (%s)", i.Name, keyName(i.Certificate.Leaf))
}

// Adopt presents certificates by ACME from now on, in place of the self-signed ones: for each name, those with the most
// efficient key first. None: the self-signed ones again. Open sessions keep what they were shown.
func (m *Manager) Adopt(all []Issued) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(all) == 0 || !m.options.ACME { // a reload has just taken the setting out
		m.issued.Store(nil)
	} else {
		m.issued.Store(issuedSet(all, time.Now()))
	}
	m.announceLocked()
	if m.options.Changed != nil {
		m.options.Changed(nil)
	}
}

// issuedSet does not refuse one that has ended: a client that warns is better off than one that cannot connect.
func issuedSet(all []Issued, now time.Time) *set {
	s := &set{}
	for _, one := range all {
		c := one.Certificate
		s.certificates = append(s.certificates, &c)
		s.info = append(s.info, InfoOf(one, now))
	}
	return s
}

// InfoOf describes an issued certificate.
func InfoOf(one Issued, now time.Time) Info {
	file := one.File()
	info := describe(&Options{CertFile: file, KeyFile: file, Hostname: one.Name}, file, &one.Certificate, now)
	info.Issued, info.NotBefore = true, one.Certificate.Leaf.NotBefore
	for i := slices.Index(info.Kinds, Ending); i >= 0; i = slices.Index(info.Kinds, Ending) {
		info.Warnings, info.Kinds = slices.Delete(info.Warnings, i, i+1), slices.Delete(info.Kinds, i, i+1)
	}
	if info.RenewalLate(now) {
		info.Kinds = append(info.Kinds, Ending)
		info.Warnings = append(info.Warnings, fmt.Sprintf("it ends on %s and should have been renewed by now; what is "+
			"in the way: postern cert list", day(info.NotAfter)))
	}
	return info
}

// RenewalLate reports whether an issued certificate should have been renewed: that begins with a third of its life
// left, or when the authority says, and there is cause for alarm with a quarter left.
func (info *Info) RenewalLate(now time.Time) bool {
	return info.Issued && info.NotAfter.Sub(now) < info.NotAfter.Sub(info.NotBefore)/4
}

// inUse is what is presented: by ACME if there is any.
func (m *Manager) inUse() *set {
	if s := m.issued.Load(); s != nil {
		return s
	}
	return m.current.Load()
}

// forName narrows issued certificates to those for the name that a client asks for. A client that asks for none, or for
// another, gets those of the first name.
func (s *set) forName(name string) []*tls.Certificate {
	covers := func(name string) []*tls.Certificate {
		return slices.DeleteFunc(slices.Clone(s.certificates), func(c *tls.Certificate) bool {
			return c.Leaf.VerifyHostname(name) != nil
		})
	}
	if name != "" {
		if found := covers(name); len(found) > 0 {
			return found
		}
	}
	if names := s.certificates[0].Leaf.DNSNames; len(names) > 0 {
		return covers(names[0])
	}
	return s.certificates
}
