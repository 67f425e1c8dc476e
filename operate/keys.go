package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/keyring"
	"postern/relay/outbound"
	"postern/relay/sign"
	"postern/relay/store"
)

// Keys is what may be done with DKIM keys. Their life is that of package keyring.
type Keys struct{ *desk }

// Key is a DKIM key of ours.
type Key struct {
	sign.Key
	Made   time.Time // zero: not known
	Stored bool      // else it is in relay.toml, and signs
	State  keyring.State
	Next   string // what a person has to do next, in words; "nothing" where that is so
	Over   bool   // it has retired, and nothing needs its record any more
}

// List returns every key: those of relay.toml, then those of the store.
func (k Keys) List(ctx context.Context, by Actor) ([]Key, error) {
	if err := by.May(SeeKeys); err != nil {
		return nil, err
	}
	return k.list(ctx, time.Now())
}

func (k Keys) list(ctx context.Context, now time.Time) ([]Key, error) {
	configured, err := outbound.ConfiguredKeys(k.Config().DKIM)
	if err != nil {
		return nil, err
	}
	var all []Key
	rows, err := k.Store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	known, err := k.Store.ConfiguredKeys(ctx)
	if err != nil {
		return nil, err
	}
	ring := keyring.Ring{Keys: rows, Configured: keyring.Configured(configured, known)}
	for i := range ring.Configured {
		all = append(all, Key{Key: configured[i], State: ring.Configured[i].State,
			Next: ring.NextStep(&ring.Configured[i], now)})
	}
	for i := range rows {
		row := &rows[i]
		key, err := outbound.StoredKey(*row)
		if err != nil {
			return nil, err
		}
		next := ring.NextStep(row, now)
		if row.Stage == keyring.Signing && slices.ContainsFunc(configured, func(o sign.Key) bool {
			return o.Domain == key.Domain && isRSA(o.Algorithm()) == isRSA(key.Algorithm())
		}) {
			next = "it does not sign, since a key of relay.toml goes first: take that [[dkim]] out"
		}
		all = append(all, Key{key, row.Created, true, row.State, next, row.Over(now)})
	}
	return all, nil
}

func isRSA(algorithm string) bool { return strings.HasPrefix(algorithm, "rsa") }

// ParseDomain reads a domain that somebody typed, and returns it as DNS has it.
func ParseDomain(text string) (string, error) {
	domain, err := mail.ParseDomain(strings.TrimSuffix(text, "."))
	if err != nil {
		return "", fault(Invalid, "%q is no domain; write it as in example.com",
			mail.Printable(mail.Cut(text, maxNamed)))
	}
	return mail.ALabels(domain), nil
}

// Add makes a key of each algorithm for a domain. They sign once DNS shows their records. Without a selector they are
// called r and e with year and month.
func (k Keys) Add(ctx context.Context, by Actor, domain, selector string, algorithms []string) ([]Key, error) {
	return k.add(ctx, by, domain, selector, algorithms, keyring.New)
}

// AddNow makes keys as Add does that sign at once, in place of those of their algorithms. Until their records are
// published, signatures fail at receivers.
func (k Keys) AddNow(ctx context.Context, by Actor, domain, selector string, algorithms []string) ([]Key, error) {
	return k.add(ctx, by, domain, selector, algorithms, keyring.Signing)
}

func (k Keys) add(ctx context.Context, by Actor, domain, selector string, algorithms []string,
	stage keyring.Stage) (made []Key, err error) {
	if domain, err = ParseDomain(domain); err != nil {
		return nil, err
	}
	err = k.act(ctx, by, AddKeys, domain, func(ctx context.Context, detail *string) error {
		named := func(algorithm string) string {
			switch {
			case selector == "":
				return usualSelector(algorithm, time.Now())
			case len(algorithms) > 1:
				return selector + "-" + algorithm[:1]
			}
			return selector
		}
		made, err = k.create(ctx, domain, stage, algorithms, named, func(_, new []store.Key) error {
			*detail = selectors(new)
			return nil
		})
		return err
	})
	return made, err
}

// usualSelector is a selector of which a person sees what it is and from when.
func usualSelector(algorithm string, now time.Time) string {
	return algorithm[:1] + now.Format("200601")
}

func selectors(keys []store.Key) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Selector
	}
	return strings.Join(names, ", ")
}

// create makes keys and stores them, if admit lets it when it sees the keys that there are then, and the new ones.
func (k Keys) create(ctx context.Context, domain string, stage keyring.Stage, algorithms []string,
	named func(algorithm string) string, admit func(there, made []store.Key) error) (made []Key, err error) {
	now := time.Now()
	var rows []store.Key
	for _, alg := range algorithms {
		signer, pem, err := sign.Generate(alg)
		if err != nil {
			return nil, fault(Invalid, "%v", err)
		}
		key := sign.Key{Domain: domain, Selector: named(alg), Signer: signer}
		if _, err := sign.CheckKey(key); err != nil {
			return nil, fault(Invalid, "%v", err)
		}
		state := keyring.State{Stage: stage, Since: now}
		made = append(made, Key{Key: key, Made: now, Stored: true, State: state})
		rows = append(rows, store.Key{Domain: domain, Selector: key.Selector, Algorithm: alg, PEM: string(pem),
			Created: now, State: state})
	}
	ring := keyring.Ring{Keys: rows}
	for i := range rows {
		made[i].Next = ring.NextStep(&rows[i], now)
	}
	err = k.Store.AdmitKeys(ctx, func(there []store.Key) error { return admit(there, rows) }, rows...)
	if exists, is := errors.AsType[*store.KeyExistsError](err); is {
		err = fault(Conflict, "%v", exists)
	}
	if err != nil {
		return nil, err
	}
	return made, nil
}

// Rotate makes keys that sign in place of those that sign for a domain now, once DNS has shown the records of all of
// them for an hour (keyring.Stable). Without algorithms they are those that sign now.
func (k Keys) Rotate(ctx context.Context, by Actor, domain string, algorithms []string) (made []Key, err error) {
	if domain, err = ParseDomain(domain); err != nil {
		return nil, err
	}
	err = k.act(ctx, by, RotateKeys, domain, func(ctx context.Context, detail *string) error {
		there, err := k.list(ctx, time.Now())
		if err != nil {
			return err
		}
		there = slices.DeleteFunc(there, func(o Key) bool { return o.Domain != domain })
		if algorithms, err = rotated(there, domain, algorithms); err != nil {
			return err
		}
		named := func(algorithm string) string { return freeSelector(there, usualSelector(algorithm, time.Now())) }
		made, err = k.create(ctx, domain, keyring.New, algorithms, named, func(now, new []store.Key) error {
			*detail = selectors(new)
			return noneWaits(now, domain)
		})
		return err
	})
	return made, err
}

// rotated are the algorithms of the new keys: those that are asked for, or those that sign now.
func rotated(there []Key, domain string, asked []string) ([]string, error) {
	var signing []string
	for _, o := range there {
		if alg := sign.RSA2048; o.State.Stage == keyring.Signing {
			if !isRSA(o.Algorithm()) {
				alg = sign.Ed25519
			}
			if !slices.Contains(signing, alg) {
				signing = append(signing, alg)
			}
		}
	}
	switch {
	case len(there) == 0:
		return nil, fault(NotFound, "there is no key of %s; make some: postern dkim add %s", domain, domain)
	case len(asked) > 0:
		return asked, nil
	case len(signing) == 0:
		return nil, fault(Conflict, "no key of %s signs, so there is nothing to replace; publish the records of those "+
			"that wait (postern dkim list), or make others: postern dkim add %s", domain, domain)
	}
	return signing, nil
}

// noneWaits refuses to rotate while keys wait: of two rotations one would never end.
func noneWaits(there []store.Key, domain string) error {
	ring := keyring.Ring{Keys: there}
	if waiting := ring.Candidates(domain); len(waiting) > 0 {
		o := waiting[0]
		return fault(Conflict, "%s waits to sign for %s already; publish its record, or remove it first: postern dkim "+
			"remove %s %s", o.Selector, domain, domain, o.Selector)
	}
	return nil
}

// freeSelector is a selector, with a number behind it where it is taken.
func freeSelector(there []Key, name string) string {
	taken := func(s string) bool { return slices.ContainsFunc(there, func(o Key) bool { return o.Selector == s }) }
	free := name
	for i := 2; taken(free); i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	return free
}

// Retire lets a key sign no more. Its record must stay for keyring.RetireFor. Mail that would leave without a signature
// that receivers verify is a Conflict, unless forced.
func (k Keys) Retire(ctx context.Context, by Actor, domain, selector string, force bool) error {
	domain, err := ParseDomain(domain)
	if err != nil {
		return err
	}
	return k.act(ctx, by, RetireKey, domain, func(ctx context.Context, detail *string) error {
		configured, now := k.Config().KeyDomains(), time.Now()
		*detail = insisted(selector, force)
		return k.Store.ChangeKeys(ctx, func(all []store.Key) error {
			i := slices.IndexFunc(all, func(o store.Key) bool { return o.Domain == domain && o.Selector == selector })
			if i < 0 {
				return unknownKey(domain, selector)
			}
			key := &all[i]
			switch {
			case key.Stage.Waits():
				return fault(Conflict, "%s has never signed, so nothing needs its record; remove it: postern dkim "+
					"remove %s %s", selector, domain, selector)
			case key.Stage == keyring.Retiring:
				return fault(Conflict, "%s retires already, since %s", selector, key.Since.UTC().Format(time.DateOnly))
			}
			if !force && !slices.Contains(configured, domain) && !othersSign(all, key) {
				return fault(Conflict, "without %s mail of %s has no signature that all receivers verify; replace it: "+
					"postern dkim rotate %s, or insist (force)", selector, domain, domain)
			}
			key.Stage, key.Since = keyring.Retiring, now
			return nil
		})
	})
}

// insisted is a selector, and whether somebody insisted, for the audit.
func insisted(selector string, force bool) string {
	if force {
		return selector + ", forced"
	}
	return selector
}

func unknownKey(domain, selector string) error {
	return fault(NotFound, "the store has no key %s of %s; see postern dkim list",
		mail.Printable(mail.Cut(selector, maxNamed)), domain)
}

// othersSign reports that a key can go: another RSA key of its domain signs, since many receivers know no Ed25519
// (Microsoft, Google and Yahoo among them).
func othersSign(all []store.Key, key *store.Key) bool {
	return slices.ContainsFunc(all, func(o store.Key) bool {
		return o.Domain == key.Domain && o.Selector != key.Selector && o.Stage == keyring.Signing && isRSA(o.Algorithm)
	})
}

// Remove deletes a private key for good. One that signs, or whose record mail on its way may need, is a Conflict,
// unless forced.
func (k Keys) Remove(ctx context.Context, by Actor, domain, selector string, force bool) error {
	domain, err := ParseDomain(domain)
	if err != nil {
		return err
	}
	return k.act(ctx, by, RemoveKey, domain, func(ctx context.Context, detail *string) error {
		now := time.Now()
		*detail = insisted(selector, force)
		found, err := k.Store.RemoveKey(ctx, domain, selector, func(key store.Key, all []store.Key) error {
			switch {
			case force:
			case key.Stage == keyring.Signing && !othersSign(all, &key):
				return fault(Conflict, "%s is what mail of %s is signed with; replace it first: postern dkim rotate "+
					"%s, or insist (force)", selector, domain, domain)
			case key.Stage == keyring.Signing:
				return fault(Conflict, "%s signs; retire it first: postern dkim retire %s %s, or insist (force)",
					selector, domain, selector)
			case key.Stage == keyring.Retiring && !key.Over(now):
				return fault(Conflict, "the record of %s must stay in DNS until %s, and this key reminds of it; "+
					"remove it then, or insist (force)", selector, key.KeepUntil().UTC().Format(time.DateOnly))
			}
			return nil
		})
		if err == nil && !found {
			err = unknownKey(domain, selector)
		}
		return err
	})
}
