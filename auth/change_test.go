package auth

import (
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNoLoginJoinsOneFromBefore: a login that begins when a change is known does not get the verdict of one that was
// under way before. Its session would not be looked at again, since nothing changes after it.
func TestNoLoginJoinsOneFromBefore(t *testing.T) {
	for name, c := range map[string]struct {
		login, password string
		change          func(r *rig, dir *remote)
	}{
		"another password": {"anna", "right", func(r *rig, _ *remote) { r.addUser("anna") }},
		"locked":           {"anna", "right", func(r *rig, _ *remote) { r.lockUser("anna") }},
		"gone from the directory": {"bert", "right", func(_ *rig, d *remote) {
			d.set(func() { d.know = map[string]string{} })
		}},
		"gone from the directory, with an app password": {"bert", "app-bert", func(_ *rig, d *remote) {
			d.set(func() { d.know = map[string]string{} })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, dir, _ := newRemoteRig(t, 0)
				addApps(r)
				dir.set(func() { dir.know, dir.slow = maps.Clone(dir.know), time.Second })
				r.during = func() { time.Sleep(time.Second) }
				var before sync.WaitGroup
				before.Go(func() { wantOK(t, r.try(c.login, c.password, here)) })
				time.Sleep(time.Millisecond)
				c.change(r, dir)
				r.Forget()
				wantRefusal(t, r.try(c.login, c.password, here), 535, nil)
				before.Wait()
				wantRefusal(t, r.try(c.login, c.password, here), 535, nil)
			})
		})
	}
}

// TestForgetByOwnName: what is remembered of a login goes with it, whatever it was called by.
func TestForgetByOwnName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &renaming{remote{name: "ldap", know: map[string]string{`corp\carl`: "pw"}, stale: time.Hour},
			map[string]string{`corp\carl`: "carl"}}
		r := newRig(t, Options{Sources: []Source{source}})
		wantOK(t, r.try(`corp\carl`, "pw", here))
		r.Forget("anna")
		asked := source.asked
		wantOK(t, r.try(`corp\carl`, "pw", here))
		if source.asked != asked {
			t.Error("it is verified again, and nothing about it has changed")
		}
		source.set(func() { source.know[`corp\carl`] = "new" })
		r.Forget("carl")
		wantRefusal(t, r.try(`corp\carl`, "pw", here), 535, ErrWrongPassword)
	})
}

// TestSourceThatLeavesWhileALoginWaits: what a source says that is gone by then is not remembered.
func TestSourceThatLeavesWhileALoginWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{HashParallel: 1})
		store := r.roster.Load().members[0].Source
		file := &scripted{name: "file", table: map[string]error{"bert": nil}}
		r.SetSources([]Source{store, file})
		r.during = func() { time.Sleep(time.Second) }
		var before sync.WaitGroup
		before.Go(func() { wantOK(t, r.try("anna", "right", here)) }) // it has the only slot
		time.Sleep(time.Millisecond)
		before.Go(func() { r.try("bert", "right", here) })
		time.Sleep(time.Millisecond)
		r.SetSources([]Source{store})
		before.Wait()
		wantRefusal(t, r.try("bert", "right", here), 535, ErrUnknownLogin)
	})
}
