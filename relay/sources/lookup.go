package sources

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"postern/auth"
)

// Lookup asks the sources in order who a login is: the first that knows it decides, and is named in what it says.
// auth.ErrUnknownLogin if none does.
func Lookup(ctx context.Context, list []auth.Source, login string) (auth.Identity, error) {
	for _, s := range list {
		l, can := s.(lookuper)
		if !can {
			continue
		}
		id, err := l.Lookup(ctx, login)
		switch {
		case errors.Is(err, auth.ErrUnknownLogin), errors.Is(err, auth.ErrNoLookup):
			continue
		case err != nil:
			return auth.Identity{Source: s.Name()}, fmt.Errorf("source %s: %w", s.Name(), err)
		}
		id.Login, id.Source = cmp.Or(id.Login, login), s.Name()
		return id, nil
	}
	return auth.Identity{}, auth.ErrUnknownLogin
}
