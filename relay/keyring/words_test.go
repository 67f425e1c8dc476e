package keyring

import (
	"strings"
	"testing"
	"time"
)

func TestNextStep(t *testing.T) {
	found := func(k Key, f Found, detail string) Key {
		k.Looked, k.Found, k.FoundSince, k.FoundLast, k.Detail = began, f, began, began, detail
		return k
	}
	silent := func(k Key) Key { k.Silent, k.Looked = true, began; return k }
	later := began.Add(2 * time.Hour)
	for name, test := range map[string]struct {
		key  Key
		rest []Key
		now  time.Time
		want string
	}{
		"new":       {key: at("r1", New, 0), want: "publish its record (postern dkim dns example.com); it signs once"},
		"not there": {key: found(at("r1", New, 0), Absent, "ns1 has no record"), want: "Not yet: ns1 has no record"},
		"wrong": {key: found(at("r1", New, 0), Differs, "ns1 has another"),
			want: "correct its record (postern dkim dns example.com): ns1 has another"},
		"new, mute": {key: silent(at("r1", New, 0)), want: "DNS did not answer"},
		"waits": {key: at("r2", Published, 0), rest: []Key{at("r1", Signing, -9)},
			want: "it signs after 2026-11-28 13:00 UTC"},
		"waits for": {key: at("r2", Published, 0), rest: []Key{at("e2", New, 0)}, want: "it signs together with e2"},
		"superseded": {key: at("r1", New, 0), rest: []Key{at("r2", New, 1)},
			want: "since r2 is newer; run: postern dkim remove example.com r1"},
		"signs":    {key: found(at("r1", Signing, 0), Seen, ""), want: "nothing"},
		"unlooked": {key: at("r1", Signing, 0), want: "nobody has looked yet"},
		"mute":     {key: silent(found(at("r1", Signing, 0), Seen, "")), want: "did not answer"},
		"vanished": {key: found(at("r1", Signing, 0), Absent, "ns1 has no record"), want: "publish its record, or"},
		"retires":  {key: at("r1", Retiring, 0), want: "keep its record in DNS until 2026-12-06"},
		"retired": {key: at("r1", Retiring, 0), now: began.Add(RetireFor),
			want: "delete the record r1._domainkey.example.com from DNS, then run: postern dkim remove example.com r1"},
	} {
		if test.now.IsZero() {
			test.now = later
		}
		r := Ring{Keys: append([]Key{test.key}, test.rest...)}
		if got := r.NextStep(&r.Keys[0], test.now); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestReminders(t *testing.T) {
	bad := func(k Key, f Found, row time.Duration) Key {
		k.Found, k.FoundSince, k.FoundLast = f, began, began.Add(row)
		return k
	}
	switched := at("r1", Signing, -9)
	switched.Since = began
	for name, test := range map[string]struct {
		keys  []Key
		after time.Duration
		want  string // kinds with domains
		says  string
	}{
		"all is well":        {[]Key{bad(at("r1", Signing, 0), Seen, time.Hour)}, 99 * 24 * time.Hour, "", ""},
		"waits for two days": {[]Key{at("r1", New, 0)}, 48 * time.Hour, "", ""},
		"waits for long": {[]Key{at("e1", New, 0), at("r1", New, 0)}, RemindAfter, "waiting example.com",
			"e1._domainkey.example.com, r1."},
		"superseded":       {[]Key{at("r1", New, 0), at("r2", Signing, 1)}, 9 * RemindAfter, "", ""},
		"gone at one look": {[]Key{bad(at("r1", Signing, 0), Absent, 0)}, time.Hour, "", ""},
		"gone": {[]Key{bad(at("r1", Signing, 0), Absent, confirmed)}, time.Hour, "broken example.com",
			"It is signed all the same"},
		"another": {[]Key{bad(at("r1", Signing, 0), Differs, confirmed)}, time.Hour, "broken example.com",
			"missing or wrong"},
		"a new one is absent": {[]Key{bad(at("r1", New, 0), Absent, confirmed)}, time.Hour, "", ""},
		"retires":             {[]Key{at("r1", Retiring, 0)}, RetireFor - 1, "", ""},
		"retired": {[]Key{at("r1", Retiring, 0)}, RetireFor, "removable example.com",
			"postern dkim remove"},
		"switched":              {[]Key{switched}, 23 * time.Hour, "switched example.com", "new DKIM keys"},
		"switched long ago":     {[]Key{switched}, 25 * time.Hour, "", ""},
		"signed from the start": {[]Key{at("r1", Signing, 0)}, time.Hour, "", ""},
	} {
		r := Ring{Keys: test.keys}
		var got []string
		for _, m := range r.Reminders(began.Add(test.after)) {
			got = append(got, m.Subject)
			if m.What == "" || m.Over == "" || !strings.Contains(m.What, test.says) {
				t.Errorf("%s: %+v", name, m)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
