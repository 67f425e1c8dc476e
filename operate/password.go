package operate

import (
	"context"
	"fmt"
	"time"

	"postern/auth"
)

// credential is a new password of an account.
type credential struct {
	hash      auth.Secret
	generated string // to be shown once; "" where it was chosen
	warning   string // about one that was chosen
	scram     auth.ScramKeys
	cram      auth.CramKeys
}

func (c credential) set(u *auth.User, now time.Time) {
	u.Hash, u.Generated, u.Changed = c.hash, c.generated != "", now
}

func (c credential) shown(login string) Credential { return Credential{login, c.generated, c.warning} }

// credential makes one of a password that was chosen, or with "" of one that it generates.
// Where a listener has SCRAM or CRAM-MD5, the keys for those are made too, if they can be.
func (d *desk) credential(ctx context.Context, u auth.User, chosen string) (credential, error) {
	c, password, err := d.password(ctx, u, chosen)
	if err == nil && u.Device && c.generated != "" && len(d.Config().OfferedAt(auth.CramMD5)) > 0 {
		c.cram = auth.DeriveCram(password)
	}
	if err != nil || len(d.Config().OfferedAt(auth.ScramSHA256)) == 0 {
		return c, err
	}
	secret, err := d.Store.Secret(ctx, auth.ScramSaltName, auth.ScramSaltSize)
	if err != nil {
		return c, err
	}
	keys, why := auth.DeriveScram(secret, u.Login, password)
	if why != nil && c.warning == "" {
		c.warning = why.Error() + ": programs that choose SCRAM cannot log in with it"
	}
	c.scram = keys
	return c, nil
}

// keepKeys stores the keys that were made with a password which is set by now.
func (d *desk) keepKeys(ctx context.Context, login string, c credential) (err error) {
	if !c.scram.IsZero() {
		err = d.Store.SetScram(ctx, login, c.hash, c.scram)
	}
	if err == nil && !c.cram.IsZero() {
		err = d.Store.SetCram(ctx, login, c.hash, c.cram)
	}
	if err != nil {
		return fmt.Errorf("the password is set, but its keys for SCRAM or CRAM-MD5 are not stored, which the next "+
			"login with PLAIN makes up for: %w", err)
	}
	return nil
}

func (d *desk) password(ctx context.Context, u auth.User, chosen string) (c credential, password string, err error) {
	if chosen == "" {
		pepper, err := d.Store.Secret(ctx, auth.PepperName, auth.PepperSize)
		c = generate(pepper, u.Device)
		return c, c.generated, err
	}
	if len(chosen) > auth.MaxLength {
		return c, "", fault(Invalid, "the password is longer than %d octets", auth.MaxLength)
	}
	if err := auth.CheckPassword(auth.Prepare(chosen)); err != nil {
		return c, "", fault(Invalid, "the password: %v", err)
	}
	c.warning = auth.AdviseOn(u.Login, chosen)
	c.hash, err = auth.HashChosen(chosen)
	return c, chosen, err
}

// generate makes a password that its user can type.
func generate(pepper []byte, device bool) credential {
	password := auth.GeneratePassword()
	if device {
		password = auth.GenerateDevicePassword()
	}
	return credential{hash: auth.HashGenerated(pepper, password), generated: password}
}
