package large

import (
	"context"
	"testing"
	"testing/synctest"
)

// A message waits for room, also behind one that cannot be rebuilt, and no longer than ctx.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		broken, small := messageOf(t, "Content-Type: multipart/mixed\r\n\r\nhello"), messageOf(t, "\r\nhello")
		var open []*Rebuilt
		for range maxAtOnce {
			if _, err := r.Rebuild(t.Context(), broken); refused(err) == nil {
				t.Fatal(err)
			}
			b, err := r.Rebuild(t.Context(), small)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, b)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Rebuild(ctx, small); err != context.Canceled {
			t.Errorf("%v", err)
		}
		let := make(chan error)
		go func() {
			_, err := r.Rebuild(t.Context(), small)
			let <- err
		}()
		synctest.Wait()
		open[0].Close()
		if err := <-let; err != nil {
			t.Error(err)
		}
	})
}
