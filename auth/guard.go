package auth

import (
	"context"
	"net/netip"
	"time"
)

// What follows is for other proofs than passwords: codes of a second factor and tokens, which whoever keeps them
// verifies, within the same lockout.

// LockedUntil returns until when a login is locked for a client; the zero time when it is not. Without a login it is
// whether the client's address is locked.
func (a *Authenticator) LockedUntil(login string, client netip.Addr) time.Time {
	return a.lockout.locked(time.Now(), login, prefixOf(client))
}

// Failed counts a wrong proof, once however often it comes, and tells OnLock who is locked out by it. Without a login
// it counts for the client's address alone.
func (a *Authenticator) Failed(login, proof string, client netip.Addr) {
	a.failed(time.Now(), login, proof, client)
}

func (a *Authenticator) failed(now time.Time, login, proof string, client netip.Addr) {
	t := attempt{login: login, client: client, place: prefixOf(client), cred: a.cache.credential(login, proof)}
	if login != "" {
		a.charge(now, t)
		return
	}
	for _, lock := range a.lockout.failedAt(now, t.place, t.cred.short()) {
		a.tell(lock)
	}
}

// HashChosen is the function of that name within the bound on how much is hashed at once. Its error wraps ErrBusy if
// there is no room in time, or says what is wrong with the password.
func (a *Authenticator) HashChosen(ctx context.Context, password string) (Secret, error) {
	if err := a.slots.acquire(ctx); err != nil {
		return "", err
	}
	defer a.slots.release()
	return HashChosen(password)
}
