package acme

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/caddyserver/certmagic"
	protocol "github.com/mholt/acmez/v3/acme"
)

// accountLock is held while the account is registered, so that all processes have one.
const accountLock = "postern_account"

func accountPrefix(directory string) string {
	return "postern/account/" + issuerKey(directory, ECDSA) + "/"
}

// account returns the account at the CA, and registers it if there is none yet. With it the CA's terms of service are
// agreed to, as the documentation says.
func (o *Options) account(ctx context.Context, c *protocol.Client) (protocol.Account, error) {
	if a, err := o.storedAccount(ctx); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return o.confirmed(ctx, c, a, err)
	}
	if err := o.Storage.Lock(ctx, accountLock); err != nil {
		return protocol.Account{}, err
	}
	defer func() {
		if err := o.Storage.Unlock(context.WithoutCancel(ctx), accountLock); err != nil {
			o.Logger.Warn("the lock of the account at the CA stays for a minute", "err", err)
		}
	}()
	a, err := o.storedAccount(ctx) // another process may have been faster
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	key, err := o.accountKey(ctx)
	if err != nil {
		return a, err
	}
	return o.register(ctx, c, key)
}

// confirmed asks the CA for a stored account, and registers it anew, with its key, if the CA has forgotten it. The
// contact stays that of the registration.
func (o *Options) confirmed(ctx context.Context, c *protocol.Client, a protocol.Account,
	err error) (protocol.Account, error) {
	if err != nil {
		return a, err
	}
	found, err := c.GetAccount(ctx, a)
	if p, ok := errors.AsType[protocol.Problem](err); ok && p.Type == protocol.ProblemTypeAccountDoesNotExist {
		o.Logger.Warn("the CA does not know our account any more: a new one is made with the same key; a record of "+
			"dns-persist-01 has to name the new one: postern cert dns", "account", a.Location)
		return o.register(ctx, c, a.PrivateKey)
	}
	if err != nil {
		return a, fmt.Errorf("ask for the account at the CA: %w", err)
	}
	found.PrivateKey = a.PrivateKey
	if found.Location != a.Location {
		return found, o.saveAccount(ctx, found)
	}
	return found, nil
}

// register makes the account of a key. A CA returns the account that the key has already.
func (o *Options) register(ctx context.Context, c *protocol.Client, key crypto.Signer) (protocol.Account, error) {
	a := protocol.Account{PrivateKey: key, TermsOfServiceAgreed: true}
	if o.Email != "" {
		a.Contact = []string{"mailto:" + o.Email}
	}
	if o.EAB != (EAB{}) {
		if err := a.SetExternalAccountBinding(ctx, c, protocol.EAB{KeyID: o.EAB.ID, MACKey: o.EAB.MAC}); err != nil {
			return a, &hint{"the external account cannot be used, look at eab_id and eab_key in [tls.acme]", err}
		}
	}
	a, err := c.NewAccount(ctx, a)
	if err != nil {
		return a, fmt.Errorf("register an account at the CA: %w", err)
	}
	if a.Location == "" || a.Status != protocol.StatusValid {
		return a, fmt.Errorf("the CA made no valid account (status %q)", a.Status)
	}
	return a, o.saveAccount(ctx, a)
}

func (o *Options) saveAccount(ctx context.Context, a protocol.Account) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return o.Storage.Store(ctx, accountPrefix(o.Directory)+"account.json", data)
}

// storedAccount returns fs.ErrNotExist if there is none.
func (o *Options) storedAccount(ctx context.Context) (a protocol.Account, err error) {
	data, err := o.Storage.Load(ctx, accountPrefix(o.Directory)+"account.json")
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("the account at the CA as it is stored: %w", err)
	}
	a.PrivateKey, err = o.accountKey(ctx)
	return a, err
}

// accountKey returns the account's key. It is written before the account is made: who is interrupted in between finds
// the same account again.
func (o *Options) accountKey(ctx context.Context) (crypto.Signer, error) {
	where := accountPrefix(o.Directory) + "account.key"
	text, err := o.Storage.Load(ctx, where)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := certmagic.StandardKeyGenerator{KeyType: certmagic.P256}.GenerateKey()
		if err != nil {
			return nil, err
		}
		if text, err = certmagic.PEMEncodePrivateKey(key); err != nil {
			return nil, err
		}
		if err := o.Storage.Store(ctx, where, text); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return certmagic.PEMDecodePrivateKey(text)
}
