package auth

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestStaleOfAnotherSource: what one source verified opens nothing for another that has its name, since the settings
// may have been changed so that it would not.
func TestStaleOfAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, time.Hour)
		store := r.roster.Load().members[0].Source
		wantOK(t, r.try("bert", "right", here))
		r.SetSources([]Source{store, dir}) // a reload that changes nothing about it
		dir.set(func() { dir.err = errRefused })
		wantOK(t, r.try("bert", "right", here))
		other := &remote{name: "office", err: errRefused, stale: time.Hour}
		r.SetSources([]Source{store, other})
		wantRefusal(t, r.try("bert", "right", here), 454, errRefused)
	})
}

// TestStaleAppPasswordOfAnotherSource: the same with what a source said of the owner of an app password.
func TestStaleAppPasswordOfAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, time.Hour)
		addApps(r)
		store := r.roster.Load().members[0].Source
		wantOK(t, r.try("bert", "app-bert", here))
		r.SetSources([]Source{store, dir}) // a reload that changes nothing about it
		dir.set(func() { dir.err = errRefused })
		wantOK(t, r.try("bert", "app-bert", here))
		other := &remote{name: "office", err: errRefused, stale: time.Hour}
		r.SetSources([]Source{store, other})
		wantRefusal(t, r.try("bert", "app-bert", here), 454, errRefused)
	})
}
