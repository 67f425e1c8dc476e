package certs

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postern/internal/textfile"
)

// Companion is an RSA certificate beside those of a Manager, for listeners of old devices that know no ECDSA: from
// files of its own, or self-signed. It is not loaded before a listener wants it.
//
// Failure semantics: as of a Manager. At start a certificate that cannot be used is an error, while running the one in
// use stays.
type Companion struct {
	mu      sync.Mutex // guards manager
	manager *Manager   // nil: no listener wants it
	log     *slog.Logger
	shared  Shared // guarded by mu; of Share
}

// NewCompanion loads the certificate of o, or makes a self-signed one, if it is wanted.
func NewCompanion(o Options, wanted bool) (*Companion, error) {
	c := &Companion{log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}
	return c, c.Use(o, wanted)
}

// CheckCompanion checks the files of an RSA certificate without using them. Its error is Faults.
func CheckCompanion(o Options, now time.Time) error {
	if o.selfSigned() {
		return nil
	}
	s, err := load(&o, now)
	if err != nil {
		return err
	}
	return mustBeRSA(o.CertFile, s)
}

func mustBeRSA(file string, s *set) error {
	if key, ok := s.certificates[0].Leaf.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() < 2048 {
		return Faults{{Text: fmt.Sprintf("the certificate in %s has a key of kind %s, and is for devices that know "+
			"RSA alone: get one with an RSA key of 2048 bits", file, s.info[0].Key)}}
	}
	return nil
}

// Use changes the options, as after a change of relay.toml. On an error nothing changes.
func (c *Companion) Use(o Options, wanted bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !wanted {
		c.manager = nil
		return nil
	}
	if err := CheckCompanion(o, time.Now()); err != nil {
		return err
	}
	if o.selfSigned() { // what a Manager says of it is for listeners that have nothing else
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if c.manager != nil && c.manager.isSelfSigned() == o.selfSigned() {
		return c.manager.Use(o)
	}
	m, err := New(o)
	if err != nil {
		return err
	}
	if c.shared != nil {
		if err := m.Share(c.shared); err != nil {
			c.log.Warn("this node presents an RSA certificate of its own", "err", err)
		}
	}
	c.manager = m
	c.log.Info("listeners of old devices present an RSA certificate beside the other", "names", m.last().Leaf.DNSNames,
		"expires", m.last().Leaf.NotAfter, "self-signed", o.selfSigned())
	return nil
}

// last is the certificate with an RSA key: of a self-signed pair the second.
func (m *Manager) last() *tls.Certificate {
	all := m.current.Load().certificates
	return all[len(all)-1]
}

// Run watches the files and the dates until ctx ends.
func (c *Companion) Run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var watched *Manager
	var before textfile.Fingerprint
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m := c.now()
			if m != watched {
				watched, before = m, textfile.Fingerprint{}
			}
			if m != nil {
				before = m.look(now, before)
			}
		}
	}
}

func (c *Companion) now() *Manager {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.manager
}

// Info describes the certificate in use if it is of files, which somebody must renew; else none.
func (c *Companion) Info() []Info {
	if m := c.now(); m != nil && !m.isSelfSigned() {
		return m.Info()
	}
	return nil
}

// isSelfSigned reports whether this program makes the certificates itself.
func (m *Manager) isSelfSigned() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.options.selfSigned()
}

// Beside returns what chooses between the certificates of first and this one: the first that the client supports. If it
// supports neither it gets that of first, whose key is the better known fault.
func (c *Companion) Beside(first func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (
	*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		nameless := *hello
		nameless.ServerName = ""
		cert, err := first(hello)
		if err == nil && cert != nil && nameless.SupportsCertificate(cert) == nil {
			return cert, nil
		}
		if m := c.now(); m != nil && (err != nil || nameless.SupportsCertificate(m.last()) == nil) {
			return m.last(), nil
		}
		return cert, err
	}
}
