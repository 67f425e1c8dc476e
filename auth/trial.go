package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// KeyEntry is a login as a source that has keys of its password knows it.
type KeyEntry struct {
	Identity  Identity
	Keys      ScramKeys // zero: it has none
	Cram      CramKeys  // zero: it has none
	Generated bool      // its password was generated, and cannot be guessed
	Locked    error     // wraps ErrLocked; nil: it is not
}

func (e KeyEntry) sameKeys(o KeyEntry) bool { return e.Keys.Equal(o.Keys) && e.Cram == o.Cram }

// scramSource is a Source on this machine that has keys for SCRAM.
type scramSource interface {
	// Scram returns ErrUnknownLogin for a login that is not its own.
	Scram(ctx context.Context, login string) (KeyEntry, error)
	// ScramShapes are those of all keys that it has, each once.
	ScramShapes() []ScramShape
}

// cramSource is a scramSource that has keys for CRAM-MD5 too.
type cramSource interface {
	// Cram is Scram for them.
	Cram(ctx context.Context, login string) (KeyEntry, error)
}

// trial is one exchange of SCRAM or CRAM-MD5, which prove a password to keys of it.
type trial struct {
	a      *Authenticator
	cram   bool   // it is CRAM-MD5
	login  string // normalised
	client netip.Addr
	entry  KeyEntry
	why    error // that it cannot succeed
	source *member
}

// begin finds the login of a trial. Its errors are *mail.Error.
func (a *Authenticator) begin(ctx context.Context, login string, client netip.Addr, cram bool) (t trial, err error) {
	t = trial{a: a, cram: cram, client: client, why: ErrMalformed}
	name, ok := NormalizeLogin(login)
	t.login = name
	if ok {
		if err = t.find(ctx); err != nil {
			_, err = a.answer(Identity{}, err)
		}
	}
	return t, err
}

// ask asks a source. One that has no keys for CRAM-MD5 may know the login all the same.
func (t *trial) ask(ctx context.Context, m *member) (KeyEntry, error) {
	if t.cram && m.cram != nil {
		return m.cram.Cram(ctx, t.login)
	}
	return m.scram.Scram(ctx, t.login)
}

// keyless returns why the login has no keys, nil if it has.
func (t *trial) keyless() error {
	switch {
	case t.cram && t.entry.Cram.IsZero():
		return ErrNoCramKeys
	case !t.cram && t.entry.Keys.IsZero():
		return ErrNoScramKeys
	}
	return nil
}

// find looks for the source that knows the login. An error means that one could not be asked.
func (t *trial) find(ctx context.Context) error {
	t.why = ErrUnknownLogin
	for _, m := range t.a.roster.Load().scramMembers() {
		entry, err := t.ask(ctx, m)
		switch {
		case errors.Is(err, ErrUnknownLogin):
			continue
		case err != nil:
			return m.down(err)
		}
		if entry.Locked == nil {
			err = t.a.unlocked(ctx, m.Name(), t.login, entry.Identity.Login)
		}
		if errors.Is(err, ErrLocked) {
			entry.Locked = err
		} else if err != nil {
			return err
		}
		t.entry, t.source, t.why = entry, m, nil
		if why := cmp.Or(entry.Locked, t.keyless()); why != nil {
			t.why = m.said(why)
		}
		return nil
	}
	return nil
}

// Finish ends a trial: right reports whether the proof was that of its keys. What is wrong counts as a wrong password
// does: proof names it, and no two exchanges have the same, so each counts. Its errors are *mail.Error.
func (t *trial) Finish(ctx context.Context, right bool, proof string) (Identity, error) {
	id, err := t.decide(ctx, time.Now(), right, proof)
	return t.a.answer(id, err)
}

func (t *trial) decide(ctx context.Context, now time.Time, right bool, proof string) (Identity, error) {
	until := t.a.LockedUntil(t.login, t.client)
	why := t.verdict(right)
	if !until.IsZero() && (why != nil || !t.entry.Generated) {
		return Identity{}, fmt.Errorf("%w until %s", ErrLockedOut, until.UTC().Format(time.RFC3339))
	}
	var id Identity
	if why == nil {
		if id = t.source.named(t.entry.Identity, t.login); !id.Allows(t.client) {
			why = outside(attempt{client: t.client}, id)
		}
	}
	if why != nil {
		t.count(now, proof)
		return Identity{}, why
	}
	if err := t.stands(ctx); err != nil {
		return Identity{}, err
	}
	t.a.stats.verified.Add(1)
	t.a.lockout.succeeded(now, t.login, prefixOf(t.client))
	return id, nil
}

// count counts a failure. Where a login has no keys for CRAM-MD5, nothing was guessed at: smtplib tries that before
// PLAIN. It counts for the address alone, and once for each login however often it comes.
func (t *trial) count(now time.Time, proof string) {
	login := t.login
	if t.cram && t.entry.Cram.IsZero() {
		login, proof = "", "CRAM-MD5\x00"+t.login
	}
	sum := sha256.Sum256([]byte(proof))
	t.a.failed(now, login, hex.EncodeToString(sum[:]), t.client)
}

func (t *trial) verdict(right bool) error {
	switch {
	case t.why != nil:
		return t.why
	case !right:
		return t.source.said(ErrWrongPassword)
	}
	return nil
}

// stands looks whether the login was locked, or has got another password, while the client made its proof.
func (t *trial) stands(ctx context.Context) error {
	now := trial{a: t.a, cram: t.cram, login: t.login}
	if err := now.find(ctx); err != nil {
		return err
	}
	if now.why == nil && !now.entry.sameKeys(t.entry) {
		now.why = ErrWrongPassword
	}
	return now.why
}
