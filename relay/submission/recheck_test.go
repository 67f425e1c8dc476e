package submission

import (
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
)

// TestDue: an account whose source does not tell of changes is looked at again after a while, others are not.
func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := &session{identity: auth.Identity{Login: "anna"}, looked: time.Now()}
		asked := &session{identity: auth.Identity{Login: "bert", Recheck: 10 * time.Minute}, looked: time.Now()}
		for _, c := range []struct {
			after time.Duration
			due   bool
		}{{0, false}, {10*time.Minute - 1, false}, {10 * time.Minute, true}} {
			synctest.Wait()
			time.Sleep(c.after - time.Since(asked.looked))
			if asked.due() != c.due || told.due() {
				t.Errorf("after %s: %v, %v", c.after, asked.due(), told.due())
			}
		}
	})
}
