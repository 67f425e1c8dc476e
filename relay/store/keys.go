package store

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/relay/seal"
	"postern/relay/store/internal/sqlite"
)

// Key is a DKIM key as it is stored. (Domain, Selector) is what names it.
type Key struct {
	Domain, Selector string
	Algorithm        string // "rsa" or "ed25519"
	PEM              string `json:"-"` // the private key: never shown or logged
	Created          time.Time
}

// String names the key by where its public half is published.
func (k Key) String() string { return k.Selector + "._domainkey." + k.Domain }

// LogValue keeps the private key out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// KeyExistsError is the refusal of a new key whose domain and selector another one has.
type KeyExistsError struct{ Key }

func (e *KeyExistsError) Error() string {
	return fmt.Sprintf("%s has a key with selector %s already", e.Domain, e.Selector)
}

// AddKeys stores new keys, all of them or none. It replaces none (KeyExistsError): that would break the signatures on
// mail under way.
func (s *Store) AddKeys(ctx context.Context, keys ...Key) error {
	for _, k := range keys {
		if k.Domain == "" || k.Selector == "" || len(k.PEM) == 0 {
			return errors.New("a DKIM key needs a domain, a selector and the key")
		}
	}
	return s.write(ctx, func(t *tx) error {
		for i, k := range keys { // a refusal must have changed nothing
			_, exists, err := t.Int("SELECT 1 FROM dkim_key WHERE domain = ? AND selector = ?", k.Domain, k.Selector)
			if err != nil {
				return err
			}
			same := func(o Key) bool { return o.Domain == k.Domain && o.Selector == k.Selector }
			if exists || slices.ContainsFunc(keys[:i], same) {
				return refuse(&KeyExistsError{k})
			}
		}
		for _, k := range keys {
			err := t.Run("INSERT INTO dkim_key VALUES (?, ?, ?, ?, ?)", k.Domain, k.Selector, k.Algorithm, s.sealPEM(k),
				unixNano(k.Created))
			if err != nil {
				return err
			}
		}
		return bump(t.Conn, TopicKeys)
	})
}

// Keys returns all DKIM keys in order of domain and selector.
func (s *Store) Keys(ctx context.Context) (keys []Key, err error) {
	keys, err = readAll(ctx, s.readers, func(row *sqlite.Stmt) (Key, error) {
		return Key{row.Text(0), row.Text(1), row.Text(2), row.Text(3), fromNano(row.Int(4))}, nil
	}, "SELECT domain, selector, algorithm, pem, created FROM dkim_key ORDER BY domain, selector")
	for i := range keys {
		if err == nil {
			err = s.openPEM(&keys[i])
		}
	}
	return keys, wrap(err, "read the DKIM keys")
}

// sealed begins a private key that is stored sealed. PEM does not begin so.
const sealed = "sealed:"

func (k Key) label() string { return "postern dkim key\x00" + k.Domain + "\x00" + k.Selector }

func (s *Store) sealPEM(k Key) string {
	return sealed + base64.StdEncoding.EncodeToString(s.sealer.Seal(k.label(), []byte(k.PEM)))
}

func (s *Store) openPEM(k *Key) error {
	text, ok := strings.CutPrefix(k.PEM, sealed)
	if !ok {
		return nil // of an earlier version
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		b, err = s.sealer.Open(k.label(), b)
	}
	if err != nil {
		k.PEM = ""
		return fmt.Errorf("%s: %w", k, s.explainSeal(err))
	}
	k.PEM = string(b)
	return nil
}

// sealKeys seals what an earlier version stored in clear.
func (s *Store) sealKeys(ctx context.Context) error {
	keys, err := s.Keys(ctx)
	if err != nil {
		return nil // whoever needs them is told
	}
	inClear := func(row *sqlite.Stmt) (bool, error) { return row.Bool(0), nil }
	found, err := readAll(ctx, s.readers, inClear, "SELECT 1 FROM dkim_key WHERE pem NOT LIKE 'sealed:%'")
	if err != nil || len(found) == 0 {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		for _, k := range keys {
			err := t.Run("UPDATE dkim_key SET pem = ? WHERE domain = ? AND selector = ? AND pem NOT LIKE 'sealed:%'",
				s.sealPEM(k), k.Domain, k.Selector)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// OpenSealer reads the key that seals secrets of a data directory, or makes it there, for the directory's owner.
func OpenSealer(dir string) (*seal.Sealer, error) {
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
	if errors.Is(err, seal.ErrOtherKey) {
		return fmt.Errorf("%w than the one in %s: bring back the file that belongs to this store, from the backup "+
			"or the other node",
			err, filepath.Join(s.opts.Dir, seal.KeyFile))
	}
	return err
}
