package auth

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// folding is a remote source that, as directories do, takes many spellings for one login.
type folding struct{ *remote }

func (f folding) Verify(ctx context.Context, login, password string) (Identity, error) {
	own := strings.ReplaceAll(login, " ", "")
	_, err := f.remote.Verify(ctx, own, password)
	return Identity{Login: own}, OfLogin(own, err)
}

// TestSpellingsShareALockout: a login that a source knows under many spellings gets no more guesses than another.
func TestSpellingsShareALockout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		r.SetSources([]Source{r.roster.Load().members[0].Source, folding{dir}})
		for i := range 12 { // from as many networks, so that none of them is locked
			r.try("bert"+strings.Repeat(" ", i), fmt.Sprint("guess", i), from(i))
		}
		if len(r.locks) == 0 || r.locks[0].Login != "bert" {
			t.Fatalf("12 guesses for one account lock %v", r.locks)
		}
		wantRefusal(t, r.try("bert", "right", there), 535, ErrLockedOut)
		wantRefusal(t, r.try("bert"+strings.Repeat(" ", 40), "right", there), 535, ErrLockedOut)
	})
}

// TestSpellingOfTheOwner: who is known with a login, under whatever spelling, is not locked by what others guess.
func TestSpellingOfTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		r.SetSources([]Source{r.roster.Load().members[0].Source, folding{dir}})
		wantOK(t, r.try("b ert", "right", here))
		for i := range 12 {
			r.try("bert"+strings.Repeat(" ", i), fmt.Sprint("guess", i), from(i))
		}
		r.Forget("ber t") // it has to be verified again
		r.cache.forget(nil)
		wantOK(t, r.try("b ert", "right", here))
		wantOK(t, r.try("bert", "right", here))
	})
}
