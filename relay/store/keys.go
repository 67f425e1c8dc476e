package store

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/relay/keyring"
	"postern/relay/seal"
	"postern/relay/store/internal/db"
)

// Key is a DKIM key as it is stored.
type Key = keyring.Key

// KeyExistsError is the refusal of a new key whose domain and selector another one has.
type KeyExistsError struct{ Key }

func (e *KeyExistsError) Error() string {
	return fmt.Sprintf("%s has a key with selector %s already", e.Domain, e.Selector)
}

// schemaKeyStages gives keys a stage and what was seen of them in DNS. Of several keys of a domain and an algorithm the
// first one has signed so far: that goes on, and the others retire.
const schemaKeyStages = `
ALTER TABLE dkim_key ADD COLUMN stage       TEXT    NOT NULL DEFAULT 'signing';
ALTER TABLE dkim_key ADD COLUMN since       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dkim_key ADD COLUMN looked      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dkim_key ADD COLUMN found       TEXT    NOT NULL DEFAULT '';
ALTER TABLE dkim_key ADD COLUMN found_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dkim_key ADD COLUMN found_last  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dkim_key ADD COLUMN detail      TEXT    NOT NULL DEFAULT '';
ALTER TABLE dkim_key ADD COLUMN silent      INTEGER NOT NULL DEFAULT 0;
UPDATE dkim_key SET since = created;
UPDATE dkim_key SET stage = 'retiring', since = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000
WHERE EXISTS (SELECT 1 FROM dkim_key AS o WHERE o.domain = dkim_key.domain AND o.selector < dkim_key.selector
	AND (o.algorithm = 'ed25519') = (dkim_key.algorithm = 'ed25519'));
`

// AddKeys stores new keys, all of them or none. It replaces none (KeyExistsError): that would break the signatures on
// mail under way. Keys that are to sign at once (keyring.Signing) retire those in whose place they sign. A key counts
// as newer than all that its domain has, whatever the clock says.
func (s *Store) AddKeys(ctx context.Context, keys ...Key) error {
	return s.AdmitKeys(ctx, func([]Key) error { return nil }, keys...)
}

// AdmitKeys is AddKeys if admit, which is shown the keys that there are, returns no error.
func (s *Store) AdmitKeys(ctx context.Context, admit func([]Key) error, keys ...Key) error {
	for _, k := range keys {
		if k.Domain == "" || k.Selector == "" || len(k.PEM) == 0 {
			return errors.New("a DKIM key needs a domain, a selector and the key")
		}
		if !k.Stage.Waits() && k.Stage != keyring.Signing {
			return fmt.Errorf("%s: a new DKIM key cannot be in the stage %q", k, k.Stage)
		}
	}
	return s.write(ctx, func(t *tx) error {
		there, err := list(t.Conn, scanKey, selectKeys)
		if err != nil {
			return err
		}
		if err := admit(slices.Clone(there)); err != nil { // a refusal must have changed nothing
			return refuse(err)
		}
		for i, k := range keys {
			same := func(o Key) bool { return o.Domain == k.Domain && o.Selector == k.Selector }
			if slices.ContainsFunc(there, same) || slices.ContainsFunc(keys[:i], same) {
				return refuse(&KeyExistsError{k})
			}
		}
		for _, k := range keys {
			k.Created = afterAll(there, k)
			err := t.Run("INSERT INTO dkim_key (domain, selector, algorithm, pem, created) VALUES (?, ?, ?, ?, ?)",
				k.Domain, k.Selector, k.Algorithm, s.sealPEM(k), unixNano(k.Created))
			if err == nil {
				err = putKeyState(t, &k)
			}
			if err != nil {
				return err
			}
		}
		if err := retireReplaced(t, there, keys); err != nil {
			return err
		}
		return bump(t.Conn, TopicKeys)
	})
}

// afterAll is when a key was made, or just after the last one of its domain.
func afterAll(there []Key, k Key) time.Time {
	for _, o := range there {
		if o.Domain == k.Domain && !k.Created.After(o.Created) {
			k.Created = o.Created.Add(1)
		}
	}
	return k.Created
}

// retireReplaced retires keys in whose place new ones sign.
func retireReplaced(t *tx, there, news []Key) error {
	ring := keyring.Ring{Keys: slices.Clone(there)}
	for i := range news {
		if news[i].Stage == keyring.Signing {
			ring.Promote(news[i].Since, &news[i])
		}
	}
	return putChanged(t, there, ring.Keys)
}

// putChanged writes the states that have changed, and reports no error where none has.
func putChanged(t *tx, before, after []Key) error {
	for i := range after {
		if after[i].State != before[i].State {
			if err := putKeyState(t, &after[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func putKeyState(t *tx, k *Key) error {
	return t.Run("UPDATE dkim_key SET stage = ?, since = ?, looked = ?, found = ?, found_since = ?, found_last = ?, "+
		"detail = ?, silent = ? WHERE domain = ? AND selector = ?", string(k.Stage), unixNano(k.Since),
		unixNano(k.Looked),
		string(k.Found), unixNano(k.FoundSince), unixNano(k.FoundLast), k.Detail, k.Silent, k.Domain, k.Selector)
}

// ChangeKeys implements keyring.Store. The keys that change works on have no private half. The daemon hears of it where
// a stage changes.
func (s *Store) ChangeKeys(ctx context.Context, change func(keys []Key) error) error {
	return s.write(ctx, func(t *tx) error {
		before, err := list(t.Conn, scanKey, selectKeys)
		if err != nil {
			return err
		}
		after := slices.Clone(before)
		if err := change(after); err != nil {
			return refuse(err)
		}
		if err := putChanged(t, before, after); err != nil {
			return err
		}
		for i := range after {
			if after[i].Stage != before[i].Stage {
				return bump(t.Conn, TopicKeys)
			}
		}
		return nil
	})
}

// RemoveKey deletes a key. admit is shown it and all others; its error keeps it. False: there is none.
func (s *Store) RemoveKey(ctx context.Context, domain, selector string, admit func(k Key, all []Key) error) (found bool,
	err error) {
	err = s.write(ctx, func(t *tx) error {
		all, err := list(t.Conn, scanKey, selectKeys)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(k Key) bool { return k.Domain == domain && k.Selector == selector })
		if found = i >= 0; !found {
			return nil
		}
		if err := admit(all[i], all); err != nil {
			return refuse(err)
		}
		if err := t.Run("DELETE FROM dkim_key WHERE domain = ? AND selector = ?", domain, selector); err != nil {
			return err
		}
		return bump(t.Conn, TopicKeys)
	})
	return found, err
}

const selectKeys = "SELECT domain, selector, algorithm, created, stage, since, looked, found, found_since, " +
	"found_last, detail, silent, pem FROM dkim_key ORDER BY domain, selector"

// scanKey reads a key without its private half.
func scanKey(row db.Row) (Key, error) {
	return Key{
		Domain: row.Text(0), Selector: row.Text(1), Algorithm: row.Text(2), Created: fromNano(row.Int(3)),
		State: keyring.State{
			Stage: keyring.Stage(row.Text(4)), Since: fromNano(row.Int(5)), Looked: fromNano(row.Int(6)),
			Found: keyring.Found(row.Text(7)), FoundSince: fromNano(row.Int(8)), FoundLast: fromNano(row.Int(9)),
			Detail: row.Text(10), Silent: row.Bool(11),
		},
	}, nil
}

// Keys returns all DKIM keys in order of domain and selector.
func (s *Store) Keys(ctx context.Context) (keys []Key, err error) {
	keys, err = readAll(ctx, s.readers, func(row db.Row) (Key, error) {
		k, err := scanKey(row)
		k.PEM = row.Text(12)
		return k, err
	}, selectKeys)
	for i := range keys {
		if err == nil {
			err = s.openPEM(&keys[i])
		}
	}
	return keys, wrap(err, "read the DKIM keys")
}

// sealed begins a private key that is stored sealed. PEM does not begin so.
const sealed = "sealed:"

func keyLabel(k Key) string { return "postern dkim key\x00" + k.Domain + "\x00" + k.Selector }

func (s *Store) sealPEM(k Key) string {
	return sealed + base64.StdEncoding.EncodeToString(s.sealer.Seal(keyLabel(k), []byte(k.PEM)))
}

func (s *Store) openPEM(k *Key) error {
	text, ok := strings.CutPrefix(k.PEM, sealed)
	if !ok {
		return nil // of an earlier version
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		b, err = s.sealer.Open(keyLabel(*k), b)
	}
	if err != nil {
		k.PEM = ""
		return fmt.Errorf("%s: %w", k, s.explainSeal(err))
	}
	k.PEM = string(b)
	return nil
}

// matchSeal refuses a key that seals secrets if it is not the one of the other nodes.
func (s *Store) matchSeal(ctx context.Context) error {
	kept, err := readAll(ctx, s.readers, func(row db.Row) ([2]string, error) {
		return [2]string{row.Text(0), row.Text(1)}, nil
	}, "SELECT name, value FROM secret")
	for _, secret := range kept {
		if _, err := s.sealer.Open(secretLabel(secret[0]), []byte(secret[1])); errors.Is(err, seal.ErrOtherKey) {
			return wrap(s.explainSeal(err), "secret %s", secret[0])
		}
	}
	if err == nil {
		if _, err = s.Keys(ctx); !errors.Is(err, seal.ErrOtherKey) {
			err = nil // whoever needs them is told
		}
	}
	return err
}

// sealKeys seals what an earlier version stored in clear.
func (s *Store) sealKeys(ctx context.Context) error {
	keys, err := s.Keys(ctx)
	if err != nil {
		return nil // whoever needs them is told
	}
	inClear := func(row db.Row) (bool, error) { return row.Bool(0), nil }
	found, err := readAll(ctx, s.readers, inClear, "SELECT 1 FROM dkim_key WHERE substr(pem, 1, 7) <> 'sealed:'")
	if err != nil || len(found) == 0 {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		for _, k := range keys {
			err := t.Run("UPDATE dkim_key SET pem = ? WHERE domain = ? AND selector = ? "+
				"AND substr(pem, 1, 7) <> 'sealed:'",
				s.sealPEM(k), k.Domain, k.Selector)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// openSealer reads the key that seals secrets of a data directory, or makes it there, for the directory's owner.
func openSealer(dir string) (*seal.Sealer, error) {
	sealer, err := seal.OpenKey(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, seal.KeyFile)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return sealer, err // a link to a key that is kept elsewhere is its owner's matter
	}
	f, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return sealer, errors.Join(giveToOwner(f, dir), f.Close())
}

func (s *Store) explainSeal(err error) error {
	if errors.Is(err, seal.ErrOtherKey) && s.opts.URL.Server() {
		return fmt.Errorf("%w than seal_key of [store]: write the one that the other nodes have", err)
	}
	if errors.Is(err, seal.ErrOtherKey) {
		return fmt.Errorf("%w than the one in %s: bring back the file that belongs to this store, from the backup "+
			"or the other node",
			err, filepath.Join(s.opts.Dir, seal.KeyFile))
	}
	return err
}
