package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrNoScramKeys: the login has no keys for SCRAM.
var ErrNoScramKeys = errors.New("the login has no keys for SCRAM: they are made when its password is set, or at its " +
	"next login by PLAIN")

// ScramEntry is a login as a source that has keys for SCRAM knows it.
type ScramEntry struct {
	Identity  Identity
	Keys      ScramKeys // zero: it has none
	Generated bool      // its password was generated, and cannot be guessed
	Locked    error     // wraps ErrLocked; nil: it is not
}

// scramSource is a Source on this machine that has keys for SCRAM.
type scramSource interface {
	// Scram returns ErrUnknownLogin for a login that is not its own.
	Scram(ctx context.Context, login string) (ScramEntry, error)
	// ScramShapes are those of all keys that it has, each once.
	ScramShapes() []ScramShape
}

// ScramTrial is one exchange of SCRAM.
type ScramTrial struct {
	a      *Authenticator
	login  string // normalised
	client netip.Addr
	keys   ScramKeys // of its login, or of nobody
	entry  ScramEntry
	why    error // that it cannot succeed
	source *member
}

// Scram begins a trial of a login. Only sources on this machine are asked, and only those before the first remote one,
// which may be the one that knows the login: what the client sees must take the same time whoever exists. Its errors
// are *mail.Error.
func (a *Authenticator) Scram(ctx context.Context, login string, client netip.Addr) (*ScramTrial, error) {
	t := &ScramTrial{a: a, client: client, why: ErrMalformed}
	name, ok := NormalizeLogin(login)
	t.login = name
	if ok {
		if err := t.find(ctx); err != nil {
			_, err = a.answer(Identity{}, err)
			return nil, err
		}
	}
	t.keys = t.entry.Keys
	if t.why != nil && !errors.Is(t.why, ErrLocked) || t.keys.IsZero() {
		shapes := a.roster.Load().scramShapes()
		if t.source != nil {
			shapes = t.source.scram.ScramShapes()
		}
		t.keys = fakeScram(a.scramSecret, cmp.Or(name, login), shapes)
	}
	return t, nil
}

// find looks for the source that knows the login. An error means that one could not be asked.
func (t *ScramTrial) find(ctx context.Context) error {
	t.why = ErrUnknownLogin
	for _, m := range t.a.roster.Load().scramMembers() {
		entry, err := m.scram.Scram(ctx, t.login)
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
		switch {
		case entry.Locked != nil:
			t.why = m.said(entry.Locked)
		case entry.Keys.IsZero():
			t.why = m.said(ErrNoScramKeys)
		}
		return nil
	}
	return nil
}

// Finish ends a trial: right reports whether the proof was that of its keys. What is wrong counts as a wrong password
// does: proof names it, and no two exchanges have the same, so each counts. Its errors are *mail.Error.
func (t *ScramTrial) Finish(ctx context.Context, right bool, proof string) (Identity, error) {
	id, err := t.decide(ctx, time.Now(), right, proof)
	return t.a.answer(id, err)
}

func (t *ScramTrial) decide(ctx context.Context, now time.Time, right bool, proof string) (Identity, error) {
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
		sum := sha256.Sum256([]byte(proof))
		t.a.failed(now, t.login, hex.EncodeToString(sum[:]), t.client)
		return Identity{}, why
	}
	if err := t.stands(ctx); err != nil {
		return Identity{}, err
	}
	t.a.stats.verified.Add(1)
	t.a.lockout.succeeded(now, t.login, prefixOf(t.client))
	return id, nil
}

func (t *ScramTrial) verdict(right bool) error {
	switch {
	case t.why != nil:
		return t.why
	case !right:
		return t.source.said(ErrWrongPassword)
	}
	return nil
}

// stands looks whether the login was locked, or has got another password, while the client made its proof.
func (t *ScramTrial) stands(ctx context.Context) error {
	now := ScramTrial{a: t.a, login: t.login}
	if err := now.find(ctx); err != nil {
		return err
	}
	if now.why == nil && !now.entry.Keys.Equal(t.keys) {
		now.why = ErrWrongPassword
	}
	return now.why
}

// scramMembers are the sources that SCRAM can ask: those before the first that is remote.
func (r *roster) scramMembers() (list []*member) {
	for _, m := range r.members {
		if m.tokens != nil {
			continue
		}
		if m.remote != nil || m.scram == nil {
			break
		}
		list = append(list, m)
	}
	return list
}

// scramShapes are those of all keys that there are, each once, in an order of their own.
func (r *roster) scramShapes() (shapes []ScramShape) {
	for _, m := range r.scramMembers() {
		for _, s := range m.scram.ScramShapes() {
			if !slices.Contains(shapes, s) {
				shapes = append(shapes, s)
			}
		}
	}
	slices.SortFunc(shapes, func(a, b ScramShape) int {
		return cmp.Or(a.Iterations-b.Iterations, a.Salt-b.Salt)
	})
	return shapes
}
