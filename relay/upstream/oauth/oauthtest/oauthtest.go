// Package oauthtest holds the contract of a grant store as a test.
package oauthtest

import (
	"context"
	"errors"
	"fmt"

	"postern/relay/upstream/oauth"
)

// CheckGrantStore is the contract of an oauth.GrantStore, in the manner of testing/fstest. It writes grants of its own
// naming and returns what does not hold.
func CheckGrantStore(ctx context.Context, store oauth.GrantStore) error {
	const name = "postern-grant-contract"
	if _, _, err := store.LoadGrant(ctx, name); !errors.Is(err, oauth.ErrNoGrant) {
		return fmt.Errorf("load what was never saved: %v, want ErrNoGrant", err)
	}
	if _, err := store.SaveGrant(ctx, name, []byte("x"), 7); !errors.Is(err, oauth.ErrGrantChanged) {
		return fmt.Errorf("save over a version that never was: %v, want ErrGrantChanged", err)
	}
	first, err := store.SaveGrant(ctx, name, []byte("one\x00\xff"), 0)
	if err != nil || first <= 0 {
		return fmt.Errorf("first save: version %d, %v", first, err)
	}
	if _, err := store.SaveGrant(ctx, name, []byte("x"), 0); !errors.Is(err, oauth.ErrGrantChanged) {
		return fmt.Errorf("save as the first again: %v, want ErrGrantChanged", err)
	}
	second, err := store.SaveGrant(ctx, name, []byte("two"), first)
	if err != nil || second == first {
		return fmt.Errorf("second save: version %d after %d, %v", second, first, err)
	}
	if _, err := store.SaveGrant(ctx, name, []byte("x"), first); !errors.Is(err, oauth.ErrGrantChanged) {
		return fmt.Errorf("save over an old version: %v, want ErrGrantChanged", err)
	}
	if err := checkLoad(ctx, store, name, "two", second); err != nil {
		return err
	}
	if _, err := store.SaveGrant(ctx, name+"-2", []byte("other"), 0); err != nil {
		return fmt.Errorf("save another upstream's: %w", err)
	}
	return errors.Join(checkLoad(ctx, store, name, "two", second), checkRace(ctx, store, name, second))
}

func checkLoad(ctx context.Context, store oauth.GrantStore, name, want string, version int64) error {
	sealed, at, err := store.LoadGrant(ctx, name)
	if err != nil || string(sealed) != want || at != version {
		return fmt.Errorf("load: %q, version %d, %v; want %q, version %d", sealed, at, err, want, version)
	}
	return nil
}

// checkRace lets eight writers start from one version: one wins.
func checkRace(ctx context.Context, store oauth.GrantStore, name string, version int64) error {
	results := make(chan error, 8)
	for i := range cap(results) {
		go func() {
			_, err := store.SaveGrant(ctx, name, []byte{byte(i)}, version)
			results <- err
		}()
	}
	won := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, oauth.ErrGrantChanged):
			return fmt.Errorf("concurrent save: %w", err)
		}
	}
	if won != 1 {
		return fmt.Errorf("%d of %d writers from the same version won, want 1", won, cap(results))
	}
	return nil
}
