package outbound

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/keyring"
	"postern/relay/queue"
	"postern/relay/sign"
	"postern/relay/spool"
	relaystore "postern/relay/store"
	"postern/relay/upstream"
	"postern/relay/upstream/profile"
)

// signatureLife is x= of our signatures: longer than a message may wait here and at the next hops, short
// enough to bound replay. keyring.RetireFor follows from it.
const signatureLife = 7 * 24 * time.Hour

// prepare makes a transaction's content ready for an upstream: its add_headers, then its dkim setting, sign, skip or
// strip.
func (r *Routes) prepare(tx *upstream.Transaction, up *Upstream, m *queue.Message) error {
	if err := editHeader(tx, up); err != nil {
		return err
	}
	if up.Config.DKIM != config.DKIMSign {
		return nil
	}
	keys := r.Ring.For(m.Author.Domain)
	if len(keys) == 0 {
		return nil
	}
	tx.Prefix = func(context.Context) ([]byte, error) {
		return sign.Sign(tx.Content, keys, time.Now(),
			sign.Options{Expire: signatureLife, Unsigned: unsignedFields(up)})
	}
	return nil
}

// unsignedFields are those that our signature must not cover because the upstream changes them.
func unsignedFields(up *Upstream) []string {
	if up.Config.MessageID == profile.MessageIDReplaced {
		return []string{"Message-ID"}
	}
	return nil
}

// editHeader puts an upstream's add_headers on top, in the place of fields with these names that the message came with:
// what is written in relay.toml is fixed. With dkim = "strip" it takes out the signatures of others, for upstreams that
// refuse a second one.
func editHeader(tx *upstream.Transaction, up *Upstream) error {
	var gone []string
	if up.Config.DKIM == config.DKIMStrip {
		gone = append(gone, "DKIM-Signature")
	}
	for _, f := range up.fields {
		gone = append(gone, f.Name)
	}
	if len(gone) == 0 {
		return nil
	}
	head, err := mail.FirstOctets(tx.Content, 2*mail.HeaderPrefix)
	if err != nil {
		return err
	}
	h, body, err := mail.SplitHeader(head)
	if err != nil {
		return err
	}
	if h.Remove(gone...) == 0 && len(up.fields) == 0 {
		return nil
	}
	h.Prepend(up.fields...)
	tx.Content = spool.Join(h.Bytes(), tx.Content, int64(body))
	return nil
}

// ring reads the DKIM keys of the configuration and of the store. One that cannot be read is an error: mail would
// leave unsigned.
func (d *Dispatcher) ring(ctx context.Context, c *config.Config) (*sign.Ring, error) {
	keys, err := Keys(ctx, c.DKIM, d.Store)
	if err != nil {
		return nil, err
	}
	return sign.NewRing(keys), nil
}

// NewKey reads a private key in PEM. One that does not sign and verify (sign.CheckKey) is an error.
func NewKey(domain, selector string, pem []byte) (sign.Key, error) {
	signer, err := sign.ParseKey(pem)
	if err != nil {
		return sign.Key{}, err
	}
	key := sign.Key{Domain: strings.ToLower(domain), Selector: selector, Signer: signer}
	_, err = sign.CheckKey(key)
	return key, err
}

// ConfiguredKey reads the key of a [[dkim]] block.
func ConfiguredKey(d config.DKIM) (sign.Key, error) {
	pem, err := textfile.Read(d.KeyFile)
	if err != nil {
		return sign.Key{}, err
	}
	key, err := NewKey(d.Domain, d.Selector, pem)
	if err != nil {
		return sign.Key{}, fmt.Errorf("%s: %w", d.KeyFile, err)
	}
	return key, nil
}

// KeyStore has the keys that `postern dkim` made.
type KeyStore interface {
	Keys(context.Context) ([]relaystore.Key, error)
}

// StoredKeys reads the keys of the store that sign.
func StoredKeys(ctx context.Context, s KeyStore) ([]sign.Key, error) {
	return keysOf(ctx, s, func(stage keyring.Stage) bool { return stage == keyring.Signing })
}

// WaitingKeys reads the keys of the store that will sign once their records are seen.
func WaitingKeys(ctx context.Context, s KeyStore) ([]sign.Key, error) {
	return keysOf(ctx, s, keyring.Stage.Waits)
}

func keysOf(ctx context.Context, s KeyStore, of func(keyring.Stage) bool) (keys []sign.Key, err error) {
	rows, err := s.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the DKIM keys of the store: %w", err)
	}
	for _, k := range rows {
		if !of(k.Stage) {
			continue
		}
		key, err := StoredKey(k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// StoredKey reads a key of the store, whatever its stage.
func StoredKey(k relaystore.Key) (sign.Key, error) {
	key, err := NewKey(k.Domain, k.Selector, []byte(k.PEM))
	if err != nil {
		return key, fmt.Errorf("DKIM key %s of %s in the store: %w", k.Selector, k.Domain, err)
	}
	return key, nil
}

// ConfiguredKeys reads the keys of [[dkim]] blocks.
func ConfiguredKeys(blocks []config.DKIM) ([]sign.Key, error) {
	var keys []sign.Key
	for i, d := range blocks {
		key, err := ConfiguredKey(d)
		if err != nil {
			return nil, fmt.Errorf("dkim[%d].key_file: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Keys returns every DKIM key that signs: those of the configuration, then those of the store.
func Keys(ctx context.Context, blocks []config.DKIM, s KeyStore) ([]sign.Key, error) {
	keys, err := ConfiguredKeys(blocks)
	if err != nil {
		return nil, err
	}
	stored, err := StoredKeys(ctx, s)
	return append(keys, stored...), err
}
