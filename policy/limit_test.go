package policy

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseLimit(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]struct {
		limit   Limit
		written string
	}{
		"60 messages/minute":        {Limit{60, Messages, time.Minute}, "60 messages/minute"},
		"1 message/second":          {Limit{1, Messages, time.Second}, "1 message/second"},
		"1000 messages/day":         {Limit{1000, Messages, day}, "1000 messages/day"},
		"2000 recipients/day":       {Limit{2000, Recipients, day}, "2000 recipients/day"},
		"200 new recipients/day":    {Limit{200, NewRecipients, day}, "200 new recipients/day"},
		"1 new recipient/week":      {Limit{1, NewRecipients, 7 * day}, "1 new recipient/week"},
		"2GB/day":                   {Limit{2e9, Bytes, day}, "2GB/day"},
		"2 GB/day":                  {Limit{2e9, Bytes, day}, "2GB/day"},
		"1.5gb/hour":                {Limit{15e8, Bytes, time.Hour}, "1500MB/hour"},
		"2GiB/day":                  {Limit{2 << 30, Bytes, day}, "2GiB/day"},
		"100 bytes/second":          {Limit{100, Bytes, time.Second}, "100B/second"},
		"100 octets/second":         {Limit{100, Bytes, time.Second}, "100B/second"},
		"60 messages/15m":           {Limit{60, Messages, 15 * time.Minute}, "60 messages/15m"},
		"60 messages/90s":           {Limit{60, Messages, 90 * time.Second}, "60 messages/90s"},
		"60 messages/1h30m":         {Limit{60, Messages, 90 * time.Minute}, "60 messages/90m"},
		"60 messages/30d":           {Limit{60, Messages, 30 * day}, "60 messages/30d"},
		"60 messages/2w":            {Limit{60, Messages, 14 * day}, "60 messages/2w"},
		" 60  MESSAGES / Minute ":   {Limit{60, Messages, time.Minute}, "60 messages/minute"},
		"200 New  Recipients / 24h": {Limit{200, NewRecipients, day}, "200 new recipients/day"},
		"60messages/60s":            {Limit{60, Messages, time.Minute}, "60 messages/minute"},
	} {
		got, err := ParseLimit(text)
		if err != nil || got != want.limit || got.String() != want.written {
			t.Errorf("ParseLimit(%q) = %+v (%s), %v; want %+v (%s)", text, got, got, err, want.limit, want.written)
		}
	}
	for text, hint := range map[string]string{
		"":                        "has no window",
		"60 messages":             "has no window",
		"60 messages per minute":  "has no window",
		"messages/minute":         "begins with a number",
		"-1 messages/minute":      "begins with a number",
		"60/minute":               "begins with a number",
		"60 mails/minute":         `"mails" is not a unit`,
		"60 newrecipients/day":    "is not a unit",
		"0 messages/minute":       "postern user lock",
		"0.5 messages/minute":     "postern user lock",
		"1.5 messages/minute":     "whole number",
		"1..5 messages/minute":    "not a number",
		"99999999999GB/day":       "more than can be counted",
		"60 messages/":            "is not a window",
		"60 messages/minutes":     "is not a window",
		"60 messages/fortnight":   "is not a window",
		"60 messages/0s":          "between a second and a year",
		"60 messages/-1h":         "between a second and a year",
		"60 messages/500ms":       "between a second and a year",
		"60 messages/1500ms":      "whole seconds",
		"60 messages/400d":        "between a second and a year",
		"60 messages/99999999d":   "is not a window",
		"60 messages/minute/hour": "is not a window",
	} {
		if got, err := ParseLimit(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("ParseLimit(%q) = %v, %v; want %q", text, got, err, hint)
		}
	}
}

func drawLimit(t *rapid.T, label string) Limit {
	return Limit{
		Count:  rapid.Int64Range(1, 1<<40).Draw(t, label+" count"),
		Unit:   rapid.SampledFrom([]Unit{Messages, Recipients, NewRecipients, Bytes}).Draw(t, label+" unit"),
		Window: time.Duration(rapid.Int64Range(1, int64(maxWindow/time.Second)).Draw(t, label+" window")) * time.Second,
	}
}

func TestLimitsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawLimit(t, "limit")
		if got, err := ParseLimit(want.String()); got != want || err != nil {
			t.Fatalf("ParseLimit(%q) = %+v, %v; want %+v", want, got, err, want)
		}
		var text Limit
		b, _ := want.MarshalText()
		if err := text.UnmarshalText(b); err != nil || text != want {
			t.Fatalf("%s: %v, %v", b, text, err)
		}
	})
}

// FuzzParseLimit: whatever is read can be counted and reads back as the same.
func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"60 messages/minute", "2GB/day", "200 new recipients/24h", "1.5GiB/2w", "0 messages/day",
		"/", "9e9 messages/day", "٣ messages/day"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLimit(s)
		if err != nil {
			return
		}
		if l.Count < 1 || l.Window < time.Second || l.Window > maxWindow || l.Unit < Messages || l.Unit > Bytes {
			t.Fatalf("%q: %+v", s, l)
		}
		if r := l.perSecond(); r <= 0 || math.IsInf(r, 0) || math.IsNaN(r) {
			t.Fatalf("%q refills at %v", s, r)
		}
		if again, err := ParseLimit(l.String()); err != nil || again != l {
			t.Fatalf("%q is written %q, which reads as %+v, %v", s, l, again, err)
		}
	})
}
