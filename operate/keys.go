package operate

import (
	"context"
	"errors"
	"slices"
	"time"

	"postern/mail"
	"postern/relay/outbound"
	"postern/relay/sign"
	"postern/relay/store"
)

// Keys is what may be done with DKIM keys.
type Keys struct{ *desk }

// Key is a key that would sign.
type Key struct {
	sign.Key
	Made   time.Time // zero: not known
	Stored bool      // else it is in relay.toml
}

// List returns every key that would sign: those of relay.toml and those of the store.
func (k Keys) List(ctx context.Context, by Actor) ([]Key, error) {
	if err := by.May(SeeKeys); err != nil {
		return nil, err
	}
	c := k.Config()
	keys, err := outbound.Keys(ctx, c.DKIM, k.Store)
	if err != nil {
		return nil, err
	}
	rows, err := k.Store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Key, len(keys))
	for i, key := range keys {
		all[i].Key = key
		of := func(row store.Key) bool { return row.Domain == key.Domain && row.Selector == key.Selector }
		if j := slices.IndexFunc(rows, of); i >= len(c.DKIM) && j >= 0 {
			all[i].Made, all[i].Stored = rows[j].Created, true
		}
	}
	return all, nil
}

// ParseDomain reads a domain that somebody typed.
func ParseDomain(text string) (string, error) {
	domain, err := mail.ParseDomain(text)
	if err != nil {
		return "", fault(Invalid, "%q is no domain: %v", mail.Printable(mail.Cut(text, maxNamed)), err)
	}
	return domain, nil
}

// Add makes a key of each algorithm for a domain. Without a selector they are called r and e with year and month.
func (k Keys) Add(ctx context.Context, by Actor, domain, selector string, algorithms []string) (made []Key, err error) {
	if domain, err = ParseDomain(domain); err != nil {
		return nil, err
	}
	err = k.act(ctx, by, AddKeys, domain, func() (string, error) {
		rows, err := makeKeys(&made, domain, selector, algorithms, time.Now())
		if err != nil {
			return "", fault(Invalid, "%v", err)
		}
		err = k.Store.AddKeys(ctx, rows...)
		if exists, is := errors.AsType[*store.KeyExistsError](err); is {
			return "", fault(Conflict, "%v", exists)
		}
		return selector, err
	})
	return made, err
}

func makeKeys(made *[]Key, domain, selector string, algorithms []string, now time.Time) (rows []store.Key, err error) {
	for _, alg := range algorithms {
		signer, pem, err := sign.Generate(alg)
		if err != nil {
			return nil, err
		}
		name := selector
		switch {
		case name == "":
			name = alg[:1] + now.Format("200601")
		case len(algorithms) > 1:
			name += "-" + alg[:1]
		}
		k := sign.Key{Domain: domain, Selector: name, Signer: signer}
		if _, err := sign.CheckKey(k); err != nil {
			return nil, err
		}
		*made = append(*made, Key{k, now, true})
		rows = append(rows, store.Key{Domain: domain, Selector: name, Algorithm: alg, PEM: string(pem), Created: now})
	}
	return rows, nil
}

// KeyView is a key as JSON has it: the public half only.
type KeyView struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Origin    string `json:"origin"` // "store" or "relay.toml"
	Name      string `json:"record_name"`
	Record    string `json:"record"`
	ZoneLine  string `json:"zone_line"`
}

// Origin says where a key is kept.
func (k Key) Origin() string {
	if k.Stored {
		return "store"
	}
	return "relay.toml"
}

// ShownKeys returns keys as JSON has them: a list that is never null.
func ShownKeys(keys []Key) []KeyView {
	views := make([]KeyView, 0, len(keys))
	for _, k := range keys {
		record, _ := k.Record() // CheckKey accepted it
		line, _ := k.ZoneLine()
		views = append(views, KeyView{k.Domain, k.Selector, k.Algorithm(), k.Origin(), k.RecordName(), record, line})
	}
	return views
}
