package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"time"

	"github.com/caddyserver/certmagic"
	protocol "github.com/mholt/acmez/v3/acme"

	"postern/mail"
)

// State is how the attempts for a name went, for all processes.
type State struct {
	Attempted time.Time `json:"attempted,omitzero"` // the last attempt's end; zero: there was none
	Failures  int       `json:"failures,omitempty"` // in a row; 0: the last attempt was successful
	Since     time.Time `json:"since,omitzero"`     // of the first of them
	Next      time.Time `json:"next,omitzero"`      // not before
	Until     time.Time `json:"until,omitzero"`     // the CA itself said not to ask before
	Error     string    `json:"error,omitempty"`    // why the last attempt failed, for a person
	Settings  string    `json:"settings,omitempty"` // digest of those that it was made with
	Begun     time.Time `json:"begun,omitzero"`     // an order whose end nobody wrote down: the process died
	Answered  time.Time `json:"answered,omitzero"`  // when somebody asked for what was obtained; zero: nobody did
}

// How long to wait after failures in a row. Let's Encrypt takes five failed validations of a name in an hour
// (letsencrypt.org/docs/rate-limits); two kinds of keys are one attempt. A CA that was not reached has counted nothing.
var (
	refusedWaits = []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour,
		8 * time.Hour, 12 * time.Hour}
	unreachedWaits = []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
		20 * time.Minute, 30 * time.Minute, time.Hour}
)

// crashWait is how long to wait after an order during which the process died: who dies of something else, and is
// started anew each time, would use up the CA's limits.
const crashWait = 5 * time.Minute

// maxLimit bounds how long a CA may have us wait. Let's Encrypt's longest limit is a week.
const maxLimit = 7 * 24 * time.Hour

// maxAhead is how far a state may be ahead of the clock. One that is further ahead was written while the clock was
// wrong, and says nothing of when to try again.
const maxAhead = time.Hour

// maxError bounds the text of an error, in octets.
const maxError = 600

// wait is how long to leave a name alone. Who asks, and who changes the settings, ends a wait, unless the CA set it.
func (s State) wait(now time.Time, asked bool, settings string) time.Duration {
	asked = asked || s.ahead(now)
	if left := s.Begun.Add(crashWait).Sub(now); !s.Begun.IsZero() && left > 0 && !asked {
		return left
	}
	until := s.Next
	if asked || s.Settings != settings {
		until = s.Until
	}
	return max(0, min(until.Sub(now), look))
}

// ahead reports whether a state was written while the clock was ahead.
func (s State) ahead(now time.Time) bool {
	return s.Attempted.After(now.Add(maxAhead)) || s.Begun.After(now.Add(maxAhead))
}

// failed is the state after an attempt failed.
func (s State) failed(now time.Time, settings string, at *attempt, err error) State {
	next := State{Attempted: now, Failures: s.Failures + 1, Since: s.Since, Settings: settings,
		Error: words(err), Answered: s.Answered}
	if s.Failures == 0 {
		next.Since = now
	}
	waits := refusedWaits
	if !at.reached {
		waits = unreachedWaits
	}
	next.Next = now.Add(waits[min(next.Failures, len(waits))-1])
	if until := now.Add(min(at.retryAfter.Sub(now), maxLimit)); until.After(now) {
		next.Until = until
		if until.After(next.Next) {
			next.Next = until
		}
	}
	return next
}

// words says in words what failed. The CA's own are quoted.
func words(err error) string {
	text := err.Error()
	if u, ok := errors.AsType[*url.Error](err); ok {
		text = unreached(u, text)
	}
	if p, ok := errors.AsType[protocol.Problem](err); ok {
		text = fmt.Sprintf("the CA says %q (%s)", p.Detail, p.Type)
		for _, sub := range p.Subproblems {
			text += fmt.Sprintf("; %s: %q", sub.Identifier.Value, sub.Detail)
		}
	}
	if h, ok := errors.AsType[*hint](err); ok {
		text = h.text
		if p, ok := errors.AsType[protocol.Problem](h.err); ok {
			text += fmt.Sprintf(": the CA says %q", p.Detail)
		} else if h.err != nil {
			text += ": " + h.err.Error()
		}
	}
	return mail.Printable(mail.Cut(text, maxError))
}

// unreached says why the CA could not be asked.
func unreached(u *url.Error, otherwise string) string {
	host := u.URL
	if where, err := url.Parse(u.URL); err == nil {
		host = where.Host
	}
	_, network := errors.AsType[*net.OpError](u.Err)
	_, name := errors.AsType[*net.DNSError](u.Err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](u.Err)
	switch {
	case untrusted:
		return fmt.Sprintf("the server of the CA at %s is not trusted: %v; if it is a CA of your own, write ca_file "+
			"in [tls.acme]", host, u.Err)
	case network || name || u.Timeout():
		return fmt.Sprintf("the CA cannot be reached at %s: %v", host, u.Err)
	}
	return otherwise
}

// hint is an error with what a person has to do.
type hint struct {
	text string
	err  error // nil: the text says it all
}

func (h *hint) Error() string {
	if h.err == nil {
		return h.text
	}
	return h.text + ": " + h.err.Error()
}

func (h *hint) Unwrap() error { return h.err }

func stateKey(directory, name string) string {
	return "postern/state/" + issuerKey(directory, ECDSA) + "/" + certmagic.StorageKeys.Safe(name)
}

func askKey(name string) string { return "postern/asked/" + certmagic.StorageKeys.Safe(name) }

// loadState returns the zero State before the first attempt.
func loadState(ctx context.Context, o *Options, name string) (st State, err error) {
	data, err := o.Storage.Load(ctx, stateKey(o.Directory, name))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	if json.Unmarshal(data, &st) != nil {
		return State{}, nil // damaged: as if there had been no attempt
	}
	return st, nil
}

func saveState(ctx context.Context, o *Options, name string, st State) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return o.Storage.Store(ctx, stateKey(o.Directory, name), data)
}

// asked is when somebody last asked for a certificate.
func asked(ctx context.Context, s certmagic.Storage, name string) (at time.Time) {
	if data, err := s.Load(ctx, askKey(name)); err == nil {
		_ = at.UnmarshalText(data) // damaged: nobody asked
	}
	return at
}

// Ask has the process that keeps the certificates get a new one for a name, whether it is time or not.
func Ask(ctx context.Context, s Storage, name string, now time.Time) error {
	text, err := now.MarshalText()
	if err != nil {
		return err
	}
	if err := s.Store(ctx, askKey(name), text); err != nil {
		return err
	}
	return s.Announce(ctx)
}

// Status is how it stands with one certificate.
type Status struct {
	Name  string
	Key   Key
	Chain []*x509.Certificate // the leaf first; empty: there is none yet
	State State
	Asked time.Time // when somebody last asked for it
}

// List tells how it stands with each certificate. It reads only what is stored, and no private key.
func List(ctx context.Context, s certmagic.Storage, directory string, names []string, keys []Key) ([]Status, error) {
	var all []Status
	for _, name := range names {
		st, err := loadState(ctx, &Options{Storage: reader{s}, Directory: directory}, name)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			one := Status{Name: name, Key: key, State: st, Asked: asked(ctx, s, name)}
			chain, err := s.Load(ctx, certmagic.StorageKeys.SiteCert(issuerKey(directory, key), name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if one.Chain, err = parseChain(chain); err != nil {
				return nil, fmt.Errorf("the certificate for %s: %w", name, err)
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// reader is a Storage for who only reads.
type reader struct{ certmagic.Storage }

func (reader) Announce(context.Context) error { return nil }

func (reader) TryLock(context.Context, string) (bool, error) { return false, nil }
