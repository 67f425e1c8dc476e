package operate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneActorWaitsBehindItself: however many searches one has, others come at once, and nothing is left behind.
func TestOneActorWaitsBehindItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &turns{of: make(map[string]*turn)}
		script, anna := Actor{Name: "script", Channel: API}, Actor{Name: "anna", Channel: Console}
		for range maxTurns + 1 {
			go func() {
				if done, err := all.take(t.Context(), script); err == nil {
					time.Sleep(time.Second)
					done()
				}
			}()
		}
		synctest.Wait()
		if _, err := all.take(t.Context(), script); err == nil {
			t.Error("there is no bound")
		}
		began := time.Now()
		done, err := all.take(t.Context(), anna)
		if err != nil || time.Since(began) > 0 {
			t.Errorf("somebody else waited %s: %v", time.Since(began), err)
		}
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := all.take(late, anna); err == nil || time.Since(began) != time.Second {
			t.Errorf("a second search of one: %v after %s", err, time.Since(began))
		}
		done()
		time.Sleep(time.Minute)
		if len(all.of) > 0 {
			t.Errorf("%d are left", len(all.of))
		}
	})
}
