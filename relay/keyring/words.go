package keyring

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Confirmed is how long a record of a signing key must have been found missing or wrong, by several looks, before it
// counts: one server may have been late.
const confirmed = eagerEvery

// Broken reports that the record of a key that signs is missing or another one.
func (k *Key) Broken() bool {
	return k.Stage == Signing && (k.Found == Absent || k.Found == Differs) && k.FoundLast.Sub(k.FoundSince) >= confirmed
}

// Over reports that the record of a retired key may be deleted.
func (k *Key) Over(now time.Time) bool { return k.Stage == Retiring && !now.Before(k.KeepUntil()) }

// NextStep is what comes next for a key, in words for people.
func (r *Ring) NextStep(k *Key, now time.Time) string {
	switch {
	case k.Stage == Retiring && k.Over(now):
		return fmt.Sprintf("delete the record %s from DNS, then run: postern dkim remove %s %s", k, k.Domain,
			k.Selector)
	case k.Stage == Retiring:
		return "keep its record in DNS until " + day(k.KeepUntil()) + ": mail on its way is verified by it"
	case k.Stage == Signing:
		return k.signingStep()
	}
	if o := r.successor(k); o != nil {
		return fmt.Sprintf("it never signs, since %s is newer; run: postern dkim remove %s %s", o.Selector, k.Domain,
			k.Selector)
	}
	if k.Stage == New {
		return k.publishStep()
	}
	return r.waitStep(k)
}

func (k *Key) signingStep() string {
	switch {
	case k.Found == Absent || k.Found == Differs:
		return "publish its record, or signatures fail at receivers (postern dkim dns " + k.Domain + "): " + k.Detail
	case k.Silent && k.Found == Nothing:
		return "publish its record, if that is not done (postern dkim dns " + k.Domain + "); DNS did not answer when " +
			"we looked"
	case k.Silent:
		return "nothing; DNS did not answer the last look"
	case k.Found == Nothing:
		return "publish its record, if that is not done (postern dkim dns " + k.Domain + "); nobody has looked yet"
	}
	return "nothing"
}

func (k *Key) publishStep() string {
	publish := "publish its record (postern dkim dns " + k.Domain + "); it signs once the world sees it"
	switch {
	case k.Silent && k.Found == Nothing:
		return publish + ". DNS did not answer when we looked"
	case k.Found == Nothing:
		return publish
	case k.Found == Differs:
		return "correct its record (postern dkim dns " + k.Domain + "): " + k.Detail
	}
	return publish + ". Not yet: " + k.Detail
}

// waitStep is for a key that is published and has to replace others.
func (r *Ring) waitStep(k *Key) string {
	var missing []string
	ready := k.FoundSince.Add(Stable)
	for _, o := range r.Candidates(k.Domain) {
		if o.Stage == New {
			missing = append(missing, o.Selector)
		} else if at := o.FoundSince.Add(Stable); at.After(ready) {
			ready = at
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return "wait: it signs together with " + strings.Join(missing, ", ") + ", whose record is not seen yet"
	}
	return "wait: it signs after " + ready.UTC().Format("2006-01-02 15:04 UTC") + ", when a look sees its record again"
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Reminder is what a person should know of a domain's keys. Subject names it.
type Reminder struct {
	Subject string
	Domain  string
	Kind    string // "waiting", "broken", "switched" or "removable"
	What    string // what is the matter and what to do, in sentences
	Over    string // when it is not any more
	Since   time.Time
	Keys    []string // record names
}

// The kinds of reminders.
const (
	Waiting   = "waiting"
	BrokenKey = "broken"
	Switched  = "switched"
	Removable = "removable"
)

// switchedFor is how long people are told that keys were switched.
const switchedFor = 24 * time.Hour

// Reminders are what people should know now, at most one of each kind for each domain, by domain.
func (r *Ring) Reminders(now time.Time) (list []Reminder) {
	for _, k := range r.all() {
		kind := r.kind(k, now)
		if kind == "" {
			continue
		}
		j := slices.IndexFunc(list, func(m Reminder) bool { return m.Domain == k.Domain && m.Kind == kind })
		if j < 0 {
			j = len(list)
			list = append(list, Reminder{Subject: kind + " " + k.Domain, Domain: k.Domain, Kind: kind, Since: k.Since})
		}
		list[j].Keys = append(list[j].Keys, k.String())
		if k.Since.Before(list[j].Since) {
			list[j].Since = k.Since
		}
	}
	for i := range list {
		r.explain(&list[i])
	}
	return list
}

// all are the keys of the store, then those of relay.toml.
func (r *Ring) all() (list []*Key) {
	for _, keys := range [][]Key{r.Keys, r.Configured} {
		for i := range keys {
			list = append(list, &keys[i])
		}
	}
	return list
}

func (r *Ring) kind(k *Key, now time.Time) string {
	switch {
	case k.Broken():
		return BrokenKey
	case k.Over(now):
		return Removable
	case k.Stage == New && now.Sub(k.Since) >= RemindAfter && !r.superseded(k):
		return Waiting
	case k.Stage == Signing && k.Since.After(k.Created) && now.Sub(k.Since) < switchedFor:
		return Switched
	}
	return ""
}

func (r *Ring) explain(m *Reminder) {
	keys := strings.Join(m.Keys, ", ")
	switch m.Kind {
	case BrokenKey:
		m.What = fmt.Sprintf("Mail of %s is signed with a DKIM key whose record is missing or wrong in DNS (%s): "+
			"receivers do not accept the signatures. It is signed all the same, so that it passes again once the "+
			"record is back. What to do: publish the record as postern dkim dns %s shows it.", m.Domain, keys, m.Domain)
		m.Over = "The record is as it should be, or the key does not sign any more."
	case Removable:
		m.What = fmt.Sprintf("DKIM keys of %s have retired, and no mail on its way needs their records any more: %s. "+
			"What to do: delete the records from DNS, then run postern dkim remove for each.", m.Domain, keys)
		m.Over = "The keys were removed."
	case Waiting:
		m.What = fmt.Sprintf("DKIM keys of %s wait for their records since %s: %s. Until the world sees them they do "+
			"not sign. What to do: publish the records as postern dkim dns %s shows them; postern dkim check %s says "+
			"what is missing.", m.Domain, day(m.Since), keys, m.Domain, m.Domain)
		m.Over = "The records are seen, or the keys were removed."
	case Switched:
		m.What = fmt.Sprintf("Mail of %s is signed with new DKIM keys, whose records the world sees: %s. Nothing is "+
			"to do but to keep the records of keys that retire; postern dkim list says until when.", m.Domain, keys)
		m.Over = "The new keys have signed for a day, or are replaced."
	}
}
