package auth

import (
	"context"
	"testing"
	"testing/synctest"
)

// naming is a remote source that calls everybody boss.
type naming struct{ *remote }

func (n naming) Verify(ctx context.Context, login, password string) (Identity, error) {
	_, err := n.remote.Verify(ctx, login, password)
	return Identity{Login: "anna"}, err
}

func (n naming) Lookup(ctx context.Context, login string) (Identity, error) {
	_, err := n.remote.Lookup(ctx, login)
	return Identity{Login: "anna"}, err
}

// TestNameOfAnotherSource: a source's own name for a login is not that of an account of a source before it, whose
// limits and policies it would get.
func TestNameOfAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		store := r.roster.Load().members[0].Source
		r.SetSources([]Source{store, naming{dir}})
		wantRefusal(t, r.try("bert", "right", here), 535, ErrOwned)
		if id, err := r.Lookup(t.Context(), "bert"); err == nil {
			t.Errorf("looked up as %+v", id)
		}
		r.SetSources([]Source{naming{dir}, store}) // the first source decides
		wantOK(t, r.try("bert", "right", here))
	})
}
