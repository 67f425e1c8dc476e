package operate

import (
	"context"
	"time"

	"postern/auth"
)

// credential is a new password of an account.
type credential struct {
	hash      auth.Secret
	generated string // to be shown once; "" where it was chosen
	warning   string // about one that was chosen
}

func (c credential) set(u *auth.User, now time.Time) {
	u.Hash, u.Generated, u.Changed = c.hash, c.generated != "", now
}

func (c credential) shown(login string) Credential { return Credential{login, c.generated, c.warning} }

// credential makes one of a password that was chosen, or with "" of one that it generates.
func (d *desk) credential(ctx context.Context, u auth.User, chosen string) (c credential, err error) {
	if chosen == "" {
		pepper, err := d.Store.Secret(ctx, auth.PepperName, auth.PepperSize)
		return generate(pepper, u.Device), err
	}
	if len(chosen) > auth.MaxLength {
		return c, fault(Invalid, "the password is longer than %d octets", auth.MaxLength)
	}
	if err := auth.CheckPassword(auth.Prepare(chosen)); err != nil {
		return c, fault(Invalid, "the password: %v", err)
	}
	c.warning = auth.AdviseOn(u.Login, chosen)
	c.hash, err = auth.HashChosen(chosen)
	return c, err
}

// generate makes a password that its user can type.
func generate(pepper []byte, device bool) credential {
	password := auth.GeneratePassword()
	if device {
		password = auth.GenerateDevicePassword()
	}
	return credential{hash: auth.HashGenerated(pepper, password), generated: password}
}
