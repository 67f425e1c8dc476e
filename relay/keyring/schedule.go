package keyring

import (
	"hash/fnv"
	"slices"
	"time"
)

// How often keys are looked for.
const (
	eagerFor   = time.Hour       // since a key was made or its record vanished
	eagerEvery = 5 * time.Minute // for people who wait for it
	waitEvery  = time.Hour       // for a key that does not sign yet, or whose record is not as it should be
	signEvery  = 24 * time.Hour  // for a key that signs
)

// mostLooks is how many keys are looked for in one round: the servers are other people's.
const mostLooks = 10

// NextLook is when a key is to be looked for next; zero: never. A look that lies in the future, since the clock went
// back, counts as none.
func NextLook(k *Key, now time.Time) time.Time {
	every := waitEvery
	switch {
	case k.Stage == Retiring:
		return time.Time{}
	case k.Looked.IsZero() || k.Looked.After(now):
		return now
	case k.Stage.Waits() && k.Looked.Sub(k.Created) < eagerFor:
		every = eagerEvery
	case k.Stage == Signing && k.Found == Seen && !k.Silent:
		every = signEvery
	case k.Stage == Signing && k.Looked.Sub(k.FoundSince) < eagerFor:
		every = eagerEvery
	}
	return k.Looked.Add(every + spread(k, every))
}

// spread is up to a tenth of a period, other for each key, so that many keys are not looked for at one time.
func spread(k *Key, every time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(k.String()))
	return time.Duration(h.Sum32()%1000) * every / 10_000
}

// Due returns the keys to look for now, those that wait first, then by how long they are due; at most mostLooks.
func Due(keys []Key, now time.Time) []Key {
	var due []Key
	for i := range keys {
		if at := NextLook(&keys[i], now); !at.IsZero() && !at.After(now) {
			due = append(due, keys[i])
		}
	}
	slices.SortStableFunc(due, func(a, b Key) int {
		if a.Stage.Waits() != b.Stage.Waits() {
			if a.Stage.Waits() {
				return -1
			}
			return 1
		}
		return NextLook(&a, now).Compare(NextLook(&b, now))
	})
	return due[:min(len(due), mostLooks)]
}
