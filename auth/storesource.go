package auth

import (
	"context"
	"errors"
	"fmt"
)

// storeSource verifies against a UserStore.
type storeSource struct {
	users  UserStore
	pepper []byte
	argon  argon
}

// NewStoreSource returns the source of `postern user`. The pepper is the install secret that
// HashGenerated was given.
func NewStoreSource(users UserStore, pepper []byte) Source {
	return &storeSource{users: users, pepper: pepper, argon: realArgon}
}

func (s *storeSource) Name() string { return storeName }

// Dummy implements dummySource.
func (s *storeSource) Dummy(_, password string) { dummy(s.argon, password) }

// Verify implements Source. Whatever user it finds, it computes argon2id exactly once, except for a
// generated password that is right.
func (s *storeSource) Verify(ctx context.Context, login, password string) (Identity, error) {
	u, err := s.user(ctx, login)
	if err != nil {
		return Identity{}, err
	}
	ok, err := s.check(u, password)
	switch {
	case err != nil:
		return Identity{}, fmt.Errorf("user %q: %w", login, err)
	case u.Locked:
		return Identity{}, lockedError(u)
	case !ok:
		return Identity{}, ErrWrongPassword
	}
	return u.Identity(), nil
}

func (s *storeSource) check(u User, password string) (bool, error) {
	if !IsGenerated(u.Hash) {
		return verifyChosen(s.argon, u.Hash, password)
	}
	ok, err := verifyGenerated(u.Hash, s.pepper, password)
	if !ok || u.Locked {
		dummy(s.argon, password)
	}
	return ok, err
}

// VerifyFast implements fastSource: right generated passwords of logins that are not locked.
func (s *storeSource) VerifyFast(ctx context.Context, login, password string) (id Identity, ok, known bool, err error) {
	u, err := s.user(ctx, login)
	if errors.Is(err, ErrUnknownLogin) {
		return Identity{}, false, false, nil
	}
	if err != nil {
		return Identity{}, false, false, err
	}
	if u.Locked || !IsGenerated(u.Hash) {
		return Identity{}, false, true, nil
	}
	if ok, err = verifyGenerated(u.Hash, s.pepper, password); err != nil || !ok {
		return Identity{}, false, true, err
	}
	return u.Identity(), true, true, nil
}

// Lookup implements lookupSource.
func (s *storeSource) Lookup(ctx context.Context, login string) (Identity, error) {
	u, err := s.user(ctx, login)
	if err != nil {
		return Identity{}, err
	}
	if u.Locked {
		return Identity{}, lockedError(u)
	}
	return u.Identity(), nil
}

func (s *storeSource) user(ctx context.Context, login string) (User, error) {
	u, err := s.users.User(ctx, login)
	if err != nil {
		return User{}, err
	}
	if u.Login != login { // a store that compares loosely must not turn one login into another
		return User{}, ErrUnknownLogin
	}
	return u, nil
}

func lockedError(u User) error {
	if u.LockReason == "" {
		return ErrLocked
	}
	return fmt.Errorf("%w: %s", ErrLocked, u.LockReason)
}

// Scram implements scramSource.
func (s *storeSource) Scram(ctx context.Context, login string) (KeyEntry, error) {
	return s.keyEntry(login, func(proofs ProofStore, e *KeyEntry) (u User, err error) {
		u, e.Keys, err = proofs.ScramUser(ctx, login)
		return u, err
	})
}

// Cram implements cramSource.
func (s *storeSource) Cram(ctx context.Context, login string) (KeyEntry, error) {
	return s.keyEntry(login, func(proofs ProofStore, e *KeyEntry) (u User, err error) {
		if u, e.Cram, err = proofs.CramUser(ctx, login); !u.MayCram() {
			e.Cram = CramKeys{}
		}
		return u, err
	})
}

func (s *storeSource) keyEntry(login string, read func(ProofStore, *KeyEntry) (User, error)) (e KeyEntry, err error) {
	proofs, can := s.users.(ProofStore)
	if !can {
		return e, ErrUnknownLogin
	}
	u, err := read(proofs, &e)
	if err == nil && u.Login != login {
		err = ErrUnknownLogin
	}
	if err != nil {
		return KeyEntry{}, err
	}
	e.Identity, e.Generated = u.Identity(), u.Generated
	if u.Locked {
		e.Locked = lockedError(u)
	}
	return e, nil
}

// ScramShapes implements scramSource: all keys are made by us, and look as those that nobody has.
func (s *storeSource) ScramShapes() []ScramShape {
	return []ScramShape{{ScramIterations, scramSaltLength}}
}

// LoginOfKey implements keySource.
func (s *storeSource) LoginOfKey(ctx context.Context, d KeyDigest) (string, error) {
	if proofs, can := s.users.(ProofStore); can {
		return proofs.LoginOfKey(ctx, d)
	}
	return "", ErrUnknownLogin
}
