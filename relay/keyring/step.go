package keyring

import (
	"slices"
	"strings"
	"time"
)

// Sighting is what one look at DNS found.
type Sighting struct {
	Key    Key // that was looked for, by its domain, selector and time of making
	Found  Found
	Detail string
}

// Ring is all keys at one moment: those of the store, and those of relay.toml. Both are changed in place.
type Ring struct {
	Keys       []Key
	Configured []Key // see Configured; their stage never changes
}

// Change is a stage that a key came to.
type Change struct {
	Key  Key // after it
	From Stage
}

// Step notes sightings and moves each key to the stage that is due. What it returns is what changed. It may be called
// any number of times with the same sightings.
func (r *Ring) Step(now time.Time, sightings []Sighting) []Change {
	before := slices.Clone(r.Keys)
	noteAll(now, r.Keys, sightings)
	noteAll(now, r.Configured, sightings)
	for i := range r.Keys {
		r.start(now, &r.Keys[i])
	}
	for i := range r.Keys {
		r.replace(now, r.Keys[i].Domain)
	}
	var changes []Change
	for i, k := range r.Keys {
		if k.Stage != before[i].Stage {
			changes = append(changes, Change{k, before[i].Stage})
		}
	}
	return changes
}

func noteAll(now time.Time, keys []Key, sightings []Sighting) {
	for i := range keys {
		for j := range sightings {
			if keys[i].same(&sightings[j].Key) {
				keys[i].note(now, sightings[j])
			}
		}
	}
}

// note takes over what a look found. The clock may have gone back since the last one.
func (k *Key) note(now time.Time, s Sighting) {
	k.Looked = now
	if k.Silent = s.Found == Unknown; k.Silent {
		return
	}
	if k.Found != s.Found || k.FoundSince.After(now) {
		k.FoundSince = now
	}
	k.Found, k.FoundLast, k.Detail = s.Found, now, s.Detail
	switch {
	case k.Stage == New && s.Found == Seen:
		k.enter(Published, now)
	case k.Stage == Published && s.Found != Seen:
		k.enter(New, now)
	}
}

func (k *Key) enter(stage Stage, now time.Time) { k.Stage, k.Since = stage, now }

// start lets a key sign at once that takes no other's place: mail of its domain is not signed, or only by the other
// algorithm, and of two signatures one that verifies suffices.
func (r *Ring) start(now time.Time, k *Key) {
	if k.Stage == Published && !r.superseded(k) && (r.joins(k) || !r.signed(k.Domain)) {
		k.enter(Signing, now)
	}
}

// joins reports that keys of the very domain sign, but none of the algorithm.
func (r *Ring) joins(k *Key) bool {
	own := slices.ContainsFunc(r.Configured, func(o Key) bool { return o.Domain == k.Domain })
	for i := range r.Keys {
		if o := &r.Keys[i]; o.Domain == k.Domain && o.Stage == Signing {
			if o.rivals(k) {
				return false
			}
			own = true
		}
	}
	return own
}

// replace lets the waiting keys of a domain sign, all at once and in place of those of their algorithms, when all of
// them have been seen for long enough.
func (r *Ring) replace(now time.Time, domain string) {
	waiting := r.Candidates(domain)
	if len(waiting) == 0 || slices.ContainsFunc(waiting, func(k *Key) bool { return !k.stable() }) {
		return
	}
	for _, k := range waiting {
		r.Promote(now, k)
	}
}

// Promote lets a key of the ring sign, in place of the one of its algorithm.
func (r *Ring) Promote(now time.Time, k *Key) {
	for i := range r.Keys {
		if old := &r.Keys[i]; old.rivals(k) && old.Stage == Signing {
			old.enter(Retiring, now)
		}
	}
	k.enter(Signing, now)
}

// Candidates are the keys of a domain that wait to sign and have no newer one before them.
func (r *Ring) Candidates(domain string) (list []*Key) {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.Domain == domain && k.Stage.Waits() && !r.superseded(k) {
			list = append(list, k)
		}
	}
	return list
}

// superseded reports that a newer key of the same domain and algorithm signs, or is to sign.
func (r *Ring) superseded(k *Key) bool { return r.successor(k) != nil }

func (r *Ring) successor(k *Key) *Key {
	for i := range r.Keys {
		o := &r.Keys[i]
		if o.rivals(k) && o.newer(k) && (o.Stage == Signing || o.Stage.Waits() && !publishedOnly(k, o)) {
			return o
		}
	}
	return nil
}

// publishedOnly reports that k can sign and the newer o cannot yet.
func publishedOnly(k, o *Key) bool { return k.Stage == Published && o.Stage == New }

// signed reports that something signs mail of a domain: a key of its own or of a domain above it.
func (r *Ring) signed(domain string) bool {
	covers := func(d string) bool { return d == domain || strings.HasSuffix(domain, "."+d) }
	return slices.ContainsFunc(r.Configured, func(k Key) bool { return covers(k.Domain) }) ||
		slices.ContainsFunc(r.Keys, func(k Key) bool { return k.Stage == Signing && covers(k.Domain) })
}
