package access

import (
	"bytes"
	"context"
	"crypto/sha256"

	"postern/auth"
)

// Keep returns a password that somebody chose behind a link, hashed and sealed, for a form that asks once more for the
// second factor alone. It uses nothing up, and is of this link only, for FlowFor. The password follows the rules of
// Accept, with the same errors.
func (a Invitations) Keep(ctx context.Context, token, password string) (kept string, err error) {
	digest := sha256.Sum256([]byte(token))
	i, err := a.store.ConsoleInvite(ctx, digest)
	if err := a.judgeInvite(i, err); err != nil {
		return "", err
	}
	hash, err := a.newPassword(ctx, i.Name, password)
	if err != nil {
		return "", err
	}
	return a.sealFlow(flow{Kind: flowKept, Name: i.Name, Bound: digest[:], Hash: string(hash)})
}

// chosen is the password that somebody brings, hashed: now, or by Keep.
func (a Invitations) chosen(ctx context.Context, digest [32]byte, name string, got Acceptance) (auth.Secret, error) {
	if got.Password != "" || got.Kept == "" {
		return a.newPassword(ctx, name, got.Password)
	}
	f, err := a.openFlow(flowKept, got.Kept)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(f.Bound, digest[:]) || f.Name != name {
		return "", refusef(ReasonFlow, "the password was chosen for another invitation")
	}
	return auth.Secret(f.Hash), nil
}
