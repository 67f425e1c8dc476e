package keyring

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/relay/sign"
)

var began = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// at makes a key of example.com whose selector tells its algorithm, r or e, and which was made n hours after began.
func at(selector string, stage Stage, n int) Key {
	alg := sign.RSA2048
	if strings.HasPrefix(selector, "e") {
		alg = sign.Ed25519
	}
	made := began.Add(time.Duration(n) * time.Hour)
	k := Key{Domain: "example.com", Selector: selector, Algorithm: alg, Created: made,
		State: State{Stage: stage, Since: made}}
	if stage == Published {
		k.Looked, k.Found, k.FoundSince, k.FoundLast = made, Seen, made, made
	}
	return k
}

func of(domain string, k Key) Key { k.Domain = domain; return k }

// look is one look at all keys: what is found of each by its selector, and of the others nothing.
type look struct {
	after time.Duration // since began
	found map[string]Found
	want  string // the stages afterwards
}

func stages(keys []Key) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Selector+"="+string(k.Stage))
	}
	return strings.Join(list, " ")
}

func TestStep(t *testing.T) {
	all := func(f Found, names ...string) map[string]Found {
		m := map[string]Found{}
		for _, n := range names {
			m[n] = f
		}
		return m
	}
	const h = time.Hour
	for name, test := range map[string]struct {
		keys       []Key
		configured []string
		looks      []look
	}{
		"the first keys sign as soon as they are seen": {keys: []Key{at("e1", New, 0), at("r1", New, 0)}, looks: []look{
			{0, nil, "e1=new r1=new"},
			{h, all(Absent, "e1", "r1"), "e1=new r1=new"},
			{2 * h, all(Seen, "r1"), "e1=new r1=signing"},
			{3 * h, all(Seen, "e1"), "e1=signing r1=signing"},
		}},
		"silence changes nothing": {keys: []Key{at("r1", New, 0), at("r2", Signing, -9)}, looks: []look{
			{h, all(Unknown, "r1", "r2"), "r1=new r2=signing"},
		}},
		"silence does not end a row of looks": {keys: []Key{at("r1", Signing, -9), at("r2", New, 0)}, looks: []look{
			{0, all(Seen, "r2"), "r1=signing r2=published"},
			{h / 2, all(Unknown, "r2"), "r1=signing r2=published"},
			{h, all(Seen, "r2"), "r1=retiring r2=signing"},
		}},
		"silence is no second look": {keys: []Key{at("r1", Signing, -9), at("r2", New, 0)}, looks: []look{
			{0, all(Seen, "r2"), "r1=signing r2=published"},
			{2 * h, all(Unknown, "r2"), "r1=signing r2=published"},
		}},
		"a key that replaces waits for an hour": {keys: []Key{at("r1", Signing, -9), at("r2", New, 0)}, looks: []look{
			{h, all(Seen, "r2"), "r1=signing r2=published"},
			{2*h - 1, all(Seen, "r2"), "r1=signing r2=published"},
			{2 * h, all(Seen, "r2"), "r1=retiring r2=signing"},
		}},
		"a record that comes and goes begins anew": {keys: []Key{at("r1", Signing, -9), at("r2", New, 0)},
			looks: []look{
				{0, all(Seen, "r2"), "r1=signing r2=published"},
				{h / 2, all(Absent, "r2"), "r1=signing r2=new"},
				{h, all(Seen, "r2"), "r1=signing r2=published"},
				{2 * h, all(Seen, "r2"), "r1=retiring r2=signing"},
			}},
		"another record is not ours": {keys: []Key{at("r1", Signing, -9), at("r2", New, 0)}, looks: []look{
			{0, all(Differs, "r2"), "r1=signing r2=new"},
			{9 * h, all(Differs, "r2"), "r1=signing r2=new"},
		}},
		"all new ones switch together": {keys: []Key{at("e1", Signing, -9), at("e2", New, 0), at("r1", Signing, -9),
			at("r2", New, 0)}, looks: []look{
			{0, all(Seen, "r2"), "e1=signing e2=new r1=signing r2=published"},
			{2 * h, all(Seen, "r2"), "e1=signing e2=new r1=signing r2=published"},
			{3 * h, all(Seen, "r2", "e2"), "e1=signing e2=published r1=signing r2=published"},
			{4 * h, all(Seen, "r2", "e2"), "e1=retiring e2=signing r1=retiring r2=signing"},
		}},
		"another algorithm joins at once": {keys: []Key{at("e1", New, 0), at("r1", Signing, -9)}, looks: []look{
			{h, all(Seen, "e1"), "e1=signing r1=signing"},
		}},
		"beside a key of relay.toml it joins": {keys: []Key{at("r1", New, 0)}, configured: []string{"example.com"},
			looks: []look{{h, all(Seen, "r1"), "r1=signing"}}},
		"a key of the domain above is replaced": {keys: []Key{at("r0", Signing, -9),
			of("sub.example.com", at("r1", New, 0))},
			looks: []look{
				{0, all(Seen, "r1"), "r0=signing r1=published"},
				{h, all(Seen, "r1"), "r0=signing r1=signing"},
			}},
		"a key of a domain below says nothing": {keys: []Key{of("sub.example.com", at("r0", Signing, -9)),
			at("r1", New, 0)},
			looks: []look{{0, all(Seen, "r1"), "r0=signing r1=signing"}}},
		"a domain that ends alike is another": {keys: []Key{of("ample.com", at("r0", Signing, -9)), at("r1", New, 0)},
			looks: []look{{0, all(Seen, "r1"), "r0=signing r1=signing"}}},
		"the newer of two that wait": {keys: []Key{at("r1", New, 0), at("r2", New, 1)}, looks: []look{
			{2 * h, all(Seen, "r1", "r2"), "r1=published r2=signing"},
			{9 * h, all(Seen, "r1", "r2"), "r1=published r2=signing"},
		}},
		"the older one where only it is seen": {keys: []Key{at("r1", New, 0), at("r2", New, 1)}, looks: []look{
			{2 * h, all(Seen, "r1"), "r1=signing r2=new"},
			{3 * h, all(Seen, "r2"), "r1=signing r2=published"},
			{4 * h, all(Seen, "r2"), "r1=retiring r2=signing"},
		}},
		"an older one never replaces": {keys: []Key{at("r1", New, 0), at("r2", Signing, 1)}, looks: []look{
			{2 * h, all(Seen, "r1"), "r1=published r2=signing"},
			{9 * h, all(Seen, "r1"), "r1=published r2=signing"},
		}},
		"a vanished record changes no key that signs": {keys: []Key{at("r1", Signing, 0)}, looks: []look{
			{h, all(Absent, "r1"), "r1=signing"}, {99 * h, all(Absent, "r1"), "r1=signing"},
			{100 * h, all(Differs, "r1"), "r1=signing"},
		}},
		"a retiring key stays so": {keys: []Key{at("r1", Retiring, 0)}, looks: []look{
			{h, all(Seen, "r1"), "r1=retiring"}, {9999 * h, all(Absent, "r1"), "r1=retiring"},
		}},
		"a clock that went back": {keys: []Key{at("r1", Signing, -9), at("r2", New, 0)}, looks: []look{
			{9 * h, all(Seen, "r2"), "r1=signing r2=published"},
			{2 * h, all(Seen, "r2"), "r1=signing r2=published"},
			{3*h - 1, all(Seen, "r2"), "r1=signing r2=published"},
			{3 * h, all(Seen, "r2"), "r1=retiring r2=signing"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := Ring{Keys: slices.Clone(test.keys), Configured: ofFiles(test.configured)}
			for i, l := range test.looks {
				var seen []Sighting
				for _, k := range r.Keys {
					if f, ok := l.found[k.Selector]; ok {
						seen = append(seen, Sighting{Key: k, Found: f})
					}
				}
				r.Step(began.Add(l.after), seen)
				if got := stages(r.Keys); got != l.want {
					t.Fatalf("look %d: %s, want %s", i+1, got, l.want)
				}
			}
		})
	}
}

// ofFiles are keys of relay.toml for domains.
func ofFiles(domains []string) (keys []Key) {
	for _, d := range domains {
		keys = append(keys, Key{Domain: d, Selector: "file", Record: "v=DKIM1; p=x", State: State{Stage: Signing}})
	}
	return keys
}

// A late answer about a key that was removed and made anew under its selector says nothing of the new one.
func TestSightingOfAnotherKey(t *testing.T) {
	r := Ring{Keys: []Key{at("r1", New, 5)}}
	if r.Step(began.Add(6*time.Hour), []Sighting{{Key: at("r1", New, 0), Found: Seen}}); r.Keys[0].Stage != New ||
		!r.Keys[0].Looked.IsZero() {
		t.Errorf("%+v", r.Keys[0].State)
	}
}

// Whatever DNS says and the clock does: a key signs only after it was seen; one that replaces another was seen twice,
// an hour apart, without a look between that did not see it; a domain that signs goes on signing; it signs with one key
// of each algorithm; and what has retired stays so.
func TestStepProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := []string{"r1", "r2", "r3", "e1", "e2"}
		r := Ring{}
		firstSeen := map[string]time.Time{} // of the row of looks that saw it
		lastSeen := map[string]time.Time{}
		now := began
		for i := range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-40, 90).Draw(rt, "minutes")) * time.Minute)
			if len(names) > 0 && rapid.IntRange(0, 3).Draw(rt, "add") == 0 {
				k := at(names[0], New, i)
				names = names[1:]
				r.Keys = append(r.Keys, k)
				slices.SortFunc(r.Keys, func(a, b Key) int { return cmp.Compare(a.Selector, b.Selector) })
			}
			var seen []Sighting
			for _, k := range r.Keys {
				f := rapid.SampledFrom([]Found{Nothing, Seen, Seen, Seen, Absent, Differs, Unknown}).Draw(rt,
					k.Selector)
				if f == Nothing {
					continue
				}
				seen = append(seen, Sighting{Key: k, Found: f})
				first, was := firstSeen[k.Selector]
				switch {
				case f == Absent || f == Differs:
					delete(firstSeen, k.Selector)
				case f == Seen && (!was || first.After(now)):
					firstSeen[k.Selector] = now
				}
				if f == Seen {
					lastSeen[k.Selector] = now
				}
			}
			before := slices.Clone(r.Keys)
			r.Step(now, seen)
			checkStep(rt, before, r.Keys, firstSeen, lastSeen)
		}
	})
}

func checkStep(rt *rapid.T, before, after []Key, firstSeen, lastSeen map[string]time.Time) {
	signing := map[string]int{}
	for i, k := range after {
		was := before[i]
		replaces := slices.ContainsFunc(before, func(o Key) bool { return o.rivals(&k) && o.Stage == Signing })
		first, seen := firstSeen[k.Selector]
		row := lastSeen[k.Selector].Sub(first)
		switch {
		case k.Stage == Signing && was.Stage != Signing && !seen:
			rt.Fatalf("%s signs and is not seen", k)
		case k.Stage == Signing && was.Stage != Signing && replaces && row < Stable:
			rt.Fatalf("%s replaces another, seen for %s", k, row)
		case was.Stage == Retiring && k.Stage != Retiring:
			rt.Fatalf("%s came back", k)
		case was.Stage == Signing && k.Stage != Signing && k.Stage != Retiring:
			rt.Fatalf("%s signed and is %s", k, k.Stage)
		}
		if k.Stage == Signing {
			signing[k.Algorithm]++
		}
	}
	for _, k := range before {
		if k.Stage == Signing && signing[k.Algorithm] != 1 {
			rt.Fatalf("%d keys sign with %s: %s", signing[k.Algorithm], k.Algorithm, stages(after))
		}
	}
	for alg, n := range signing {
		if n > 1 {
			rt.Fatalf("%d keys sign with %s", n, alg)
		}
	}
}

func TestNextLook(t *testing.T) {
	looked := func(k Key, after time.Duration, f Found, row time.Duration) Key {
		k.Looked, k.Found, k.FoundSince = k.Created.Add(after), f, k.Created.Add(after-row)
		return k
	}
	const h, m = time.Hour, time.Minute
	for name, test := range map[string]struct {
		key  Key
		want time.Duration // after the last look, without spread; -1: now, 0: never
	}{
		"never looked":             {at("r1", New, 0), -1},
		"new":                      {looked(at("r1", New, 0), 10*m, Absent, 0), 5 * m},
		"new for an hour":          {looked(at("r1", New, 0), h, Absent, 0), h},
		"published":                {looked(at("r1", Published, 0), 10*m, Seen, 0), 5 * m},
		"published late":           {looked(at("r1", Published, 0), 30*h, Seen, 0), h},
		"signs":                    {looked(at("r1", Signing, 0), 30*h, Seen, 3*h), 24 * h},
		"its record just vanished": {looked(at("r1", Signing, 0), 30*h, Absent, 0), 5 * m},
		"is gone for long":         {looked(at("r1", Signing, 0), 30*h, Absent, 3*h), h},
		"differs for long":         {looked(at("r1", Signing, 0), 30*h, Differs, 3*h), h},
		"retires":                  {at("r1", Retiring, 0), 0},
		"looked for in the future": {looked(at("r1", Signing, 0), 1000*h, Seen, 0), -1},
	} {
		now := began.Add(100 * time.Hour)
		got := NextLook(&test.key, now)
		switch test.want {
		case -1:
			if !got.Equal(now) {
				t.Errorf("%s: %s, want now", name, got)
			}
		case 0:
			if !got.IsZero() {
				t.Errorf("%s: %s, want never", name, got)
			}
		default:
			if wait := got.Sub(test.key.Looked); wait < test.want || wait > test.want+test.want/10 {
				t.Errorf("%s: after %s, want %s and up to a tenth", name, wait, test.want)
			}
		}
	}
}

func TestDue(t *testing.T) {
	var keys []Key
	for i := range 30 {
		k := of(fmt.Sprintf("d%d.example", i), at("r1", Signing, 0))
		k.Looked, k.Found = began.Add(time.Duration(i)*time.Minute), Seen
		keys = append(keys, k)
	}
	keys = append(keys, at("r9", New, 0), at("r8", Retiring, 0))
	due := Due(keys, began.Add(100*time.Hour))
	if len(due) != mostLooks || due[0].Selector != "r9" {
		t.Errorf("%d due, first %s", len(due), due[0])
	}
	for i := 2; i < len(due); i++ {
		if NextLook(&due[i], began.Add(100*time.Hour)).Before(NextLook(&due[i-1], began.Add(100*time.Hour))) {
			t.Errorf("%s before %s", due[i-1], due[i])
		}
	}
	if due := Due(keys, began.Add(time.Hour)); len(due) != 1 {
		t.Errorf("%d due an hour later, want the new one alone", len(due))
	}
}
