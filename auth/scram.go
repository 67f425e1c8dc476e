package auth

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
)

// ErrNoScramKeys: the login has no keys for SCRAM.
var ErrNoScramKeys = errors.New("the login has no keys for SCRAM: they are made when its password is set, or at its " +
	"next login by PLAIN")

// ScramTrial is one exchange of SCRAM.
type ScramTrial struct {
	trial
	keys ScramKeys // of its login, or of nobody
}

// Scram begins a trial of a login. Only sources on this machine are asked, and only those before the first remote one,
// which may be the one that knows the login: what the client sees must take the same time whoever exists. Its errors
// are *mail.Error.
func (a *Authenticator) Scram(ctx context.Context, login string, client netip.Addr) (*ScramTrial, error) {
	begun, err := a.begin(ctx, login, client, false)
	if err != nil {
		return nil, err
	}
	t := &ScramTrial{trial: begun, keys: begun.entry.Keys}
	if t.why != nil && !errors.Is(t.why, ErrLocked) || t.keys.IsZero() {
		shapes := a.roster.Load().scramShapes()
		if t.source != nil {
			shapes = t.source.scram.ScramShapes()
		}
		t.keys = fakeScram(a.scramSecret, cmp.Or(t.login, login), shapes)
	}
	return t, nil
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
