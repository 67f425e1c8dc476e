// Package certs owns the certificates that the listeners present: from files, reloaded when they change, those
// that package certs/acme obtains, or self-signed ones made on first start, which stand in for these at first.
//
// Failure semantics: at start, files that are unreadable, expired, not yet valid, not a pair, or readable by every user
// of the machine are refused with the reason. While running, a bad change is refused with the same reason, reported
// once, and the certificates in use stay. A certificate that expires while in use stays too: a client that warns is
// better off than one that cannot connect. Info has warnings about what is allowed but unwise.
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/textfile"
)

// interval is how often the files are checked. A change counts once two checks in a row agree, so that a certificate is
// not read while its key is still being written.
const interval = 5 * time.Second

// Options says where the certificates come from.
type Options struct {
	CertFile, KeyFile string   // PEM, leaf first; both empty: self-signed
	Dir               string   // where self-signed certificates are kept, data_dir/tls
	Hostname          string   // what clients connect to
	Names             []string // names and addresses in a self-signed certificate, besides Hostname
	ACME              bool     // others are on their way, see Adopt
	Logger            *slog.Logger
	// Changed, unless nil, is called after each reload, with the reason if the change was refused.
	Changed func(error)

	shared Shared // of Share; nil: none
}

func (o *Options) selfSigned() bool { return o.CertFile == "" && o.KeyFile == "" }

// Manager holds the certificates in use.
type Manager struct {
	current atomic.Pointer[set]
	issued  atomic.Pointer[set] // by ACME, presented instead; nil: none

	mu      sync.Mutex // serialises loading; guards what follows
	options Options
	seen    textfile.Fingerprint // of the files as last loaded or refused
	spoken  time.Time            // when expiry was last spoken of
	renewed time.Time            // when renewal was last tried
	said    []string             // of what is in use: each thing is said once, not at each reload
}

// set is the certificates presented at one time, the most efficient first.
type set struct {
	certificates []*tls.Certificate
	info         []Info
}

// New loads the certificates, or makes self-signed ones.
func New(o Options) (*Manager, error) {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	now := time.Now()
	m := &Manager{options: o, spoken: now, renewed: now}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.loadLocked(now); err != nil {
		return nil, err
	}
	if !o.ACME { // else Adopt says what there is
		m.announceLocked()
	}
	return m, nil
}

// Check checks the certificates without making or changing any. Before self-signed ones are made it returns nil, nil.
func Check(o Options, now time.Time) ([]Info, error) {
	s, err := load(&o, now)
	if err != nil || s == nil {
		return nil, err
	}
	return s.info, nil
}

// loadLocked puts the files' certificates into use. It makes new self-signed ones if there are none that can be used.
func (m *Manager) loadLocked(now time.Time) error {
	m.seen = textfile.FingerprintOf(m.options.files()...)
	s, err := load(&m.options, now)
	if m.options.selfSigned() && (s == nil || err != nil || renewalDue(&m.options, s, now)) {
		if err != nil {
			m.options.Logger.Warn("self-signed certificate cannot be used, making a new one", "reason", err)
		}
		s, err = m.renewLocked(now)
	}
	if err != nil {
		return err
	}
	m.current.Store(s)
	return nil
}

func (m *Manager) renewLocked(now time.Time) (*set, error) {
	m.renewed = now
	if err := makeSelfSigned(&m.options, now); err != nil {
		return nil, err
	}
	m.options.agreeOrWarn(now, m.options.Logger) // another node may have renewed them
	m.seen = textfile.FingerprintOf(m.options.files()...)
	s, err := load(&m.options, now)
	if err == nil && s == nil {
		err = errors.New("self-signed certificates vanished while they were made")
	}
	return s, err
}

// Reload reloads the files. On an error the certificates in use stay.
func (m *Manager) Reload() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reloadLocked(time.Now())
}

// Use changes the options, as after a change of relay.toml, except for Logger and Changed. On an error nothing changes.
func (m *Manager) Use(o Options) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	o.Logger, o.Changed, o.shared = m.options.Logger, m.options.Changed, m.options.shared
	before := m.options
	m.options = o
	if !o.ACME {
		m.issued.Store(nil)
	}
	err := m.reloadLocked(time.Now())
	if err != nil {
		m.options, m.seen = before, textfile.FingerprintOf(before.files()...)
		return err
	}
	if m.options.agreeOrWarn(time.Now(), m.options.Logger) {
		return m.reloadLocked(time.Now())
	}
	return nil
}

func (m *Manager) reloadLocked(now time.Time) error {
	err := m.loadLocked(now)
	if err != nil {
		err = fmt.Errorf("certificate not changed, the one before stays: %w", err)
		m.options.Logger.Error("certificate refused, the one before stays", "reason", err)
	} else {
		m.announceLocked()
	}
	if m.options.Changed != nil {
		m.options.Changed(err)
	}
	return err
}

// Run watches the files and the dates until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var before textfile.Fingerprint
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			before = m.look(now, before)
		}
	}
}

// look applies a finished change and renews self-signed certificates. It returns what it saw, for the next look.
func (m *Manager) look(now time.Time, before textfile.Fingerprint) textfile.Fingerprint {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := textfile.FingerprintOf(m.options.files()...)
	renewal := m.options.selfSigned() && now.Sub(m.renewed) >= time.Hour &&
		renewalDue(&m.options, m.current.Load(), now)
	changed := !seen.Same(m.seen) && seen.Same(before)
	if changed || renewal {
		_ = m.reloadLocked(now) // reported there
		return m.seen
	}
	if now.Sub(m.spoken) >= 24*time.Hour {
		m.spoken = now
		m.remindLocked(now)
	}
	return seen
}

// announceLocked logs the certificates in use and their warnings, unless it has done so before.
func (m *Manager) announceLocked() {
	said := m.said
	m.said = nil
	news := func(what ...string) bool {
		key := strings.Join(what, "\x00")
		m.said = append(m.said, key)
		return !slices.Contains(said, key)
	}
	for _, info := range m.Info() {
		if news(info.Fingerprint, info.File) {
			m.options.Logger.Info("certificate in use",
				"names", info.Names, "key", info.Key, "expires", info.NotAfter, "file", info.File)
		}
		for _, w := range info.Warnings {
			if news(info.Fingerprint, info.File, w) {
				m.options.Logger.Warn("certificate: "+w, "file", info.File)
			}
		}
	}
	if m.options.ACME {
		m.announceStandInLocked(news)
	} else if m.options.selfSigned() && news(append(m.fingerprints(), m.options.Hostname, m.options.trustFile())...) {
		m.options.Logger.Warn("listeners present a self-signed certificate, which clients do not trust by themselves. "+
			"Write tls.cert_file and tls.key_file with a certificate for the host name; "+
			"until then give clients the file `trust`, or compare the fingerprint when they ask",
			"hostname", m.options.Hostname, "trust", m.options.trustFile(), "fingerprints", m.fingerprints())
	}
}

// announceStandInLocked says that there is no certificate by ACME yet.
func (m *Manager) announceStandInLocked(news func(...string) bool) {
	if m.issued.Load() == nil && news(append(m.fingerprints(), m.options.Hostname, "stand-in")...) {
		m.options.Logger.Warn("listeners present a self-signed certificate until the first one by ACME is there; "+
			"how it stands: postern cert list", "hostname", m.options.Hostname)
	}
}

func (m *Manager) fingerprints() []string {
	var all []string
	for _, info := range m.Info() {
		all = append(all, info.Key+" SHA-256 "+info.Fingerprint)
	}
	return all
}

// remindLocked logs certificates that expire soon.
func (m *Manager) remindLocked(now time.Time) {
	for _, info := range m.Info() {
		w := expiry(info.NotAfter, now)
		if info.Issued && !info.RenewalLate(now) {
			continue // it is renewed by itself
		}
		if w != "" {
			m.options.Logger.Warn("certificate: "+w, "file", info.File)
		}
	}
}

// Info describes the certificates in use, for status, alerts and metrics.
func (m *Manager) Info() []Info { return m.inUse().info }

// GetCertificate is for tls.Config. It returns the first certificate that the client supports, ECDSA before RSA, since
// its handshake costs half. Where there is none for the requested name it presents another: the client may accept it,
// and its own complaint is clearer than a TLS alert.
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := m.current.Load().certificates
	if s := m.issued.Load(); s != nil {
		all = s.forName(hello.ServerName)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	nameless := *hello
	nameless.ServerName = ""
	for _, c := range all {
		if nameless.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return all[len(all)-1], nil
}
