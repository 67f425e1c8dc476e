package operate

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"postern/relay/keyring"
	"postern/relay/outbound"
	"postern/relay/sign"
	"postern/relay/store"
)

// ErrNoDNS is the refusal to look for keys where nothing can ask DNS.
var ErrNoDNS = errors.New("DNS cannot be asked from here; run postern dkim check on the server")

// Check looks for the records of keys in DNS now, of a domain or ("") of all, and moves the keys to the stages that are
// due. It returns them as List does.
func (k Keys) Check(ctx context.Context, by Actor, domain string) (keys []Key, err error) {
	if domain != "" {
		if domain, err = ParseDomain(domain); err != nil {
			return nil, err
		}
	}
	err = k.act(ctx, by, CheckKeys, domain, func(ctx context.Context, _ *string) error {
		keys, err = k.check(ctx, domain)
		return err
	})
	return keys, err
}

func (k Keys) check(ctx context.Context, domain string) ([]Key, error) {
	if k.DNS == nil {
		return nil, ErrNoDNS
	}
	configured, err := outbound.ConfiguredKeys(k.Config().DKIM)
	if err != nil {
		return nil, err
	}
	w := keyring.Watcher{Store: k.Store, Lookup: k.DNS, Logger: slog.New(slog.DiscardHandler),
		Configured: func() []sign.Key { return configured }}
	rows, err := w.Keys(ctx)
	if err != nil {
		return nil, err
	}
	if domain != "" {
		rows = slices.DeleteFunc(rows, func(row store.Key) bool { return row.Domain != domain })
	}
	if _, err := w.Look(ctx, rows, time.Now); err != nil {
		return nil, err
	}
	keys, err := k.list(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	if domain != "" {
		keys = slices.DeleteFunc(keys, func(key Key) bool { return key.Domain != domain })
	}
	return keys, ctx.Err()
}

// KeyView is a key as JSON has it: the public half only.
type KeyView struct {
	Domain    string    `json:"domain"`
	Selector  string    `json:"selector"`
	Algorithm string    `json:"algorithm"`
	Origin    string    `json:"origin"` // "store" or "relay.toml"
	Name      string    `json:"record_name"`
	Record    string    `json:"record"`
	ZoneLine  string    `json:"zone_line"`
	Stage     string    `json:"stage"` // new, published, signing or retiring
	Since     time.Time `json:"since,omitzero"`
	Next      string    `json:"next_step"`
	Looked    time.Time `json:"looked,omitzero"`  // when it was last looked for in DNS
	Found     string    `json:"found,omitempty"`  // seen, absent, differs or unknown; "": nobody looked
	Detail    string    `json:"detail,omitempty"` // what was found in words, where it is not the record
}

// Origin says where a key is kept.
func (k Key) Origin() string {
	if k.Stored {
		return "store"
	}
	return "relay.toml"
}

// Found says what the last look at DNS found.
func (k Key) Found() keyring.Found {
	if k.State.Silent {
		return keyring.Unknown
	}
	return k.State.Found
}

// ShownKeys returns keys as JSON has them: a list that is never null.
func ShownKeys(keys []Key) []KeyView {
	views := make([]KeyView, 0, len(keys))
	for _, k := range keys {
		record, _ := k.Record() // CheckKey accepted it
		line, _ := k.ZoneLine()
		views = append(views, KeyView{k.Domain, k.Selector, k.Algorithm(), k.Origin(), k.RecordName(), record, line,
			string(k.State.Stage), k.State.Since, k.Next, k.State.Looked, string(k.Found()), k.State.Detail})
	}
	return views
}
