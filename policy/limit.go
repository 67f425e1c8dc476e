package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Unit is what a limit counts.
type Unit uint8

// The units of limits.
const (
	Messages Unit = iota + 1
	Recipients
	NewRecipients // recipients that the login has not written to before
	Bytes         // octets of messages, counted once for all recipients
)

var unitWords = map[string]Unit{
	"message": Messages, "messages": Messages,
	"recipient": Recipients, "recipients": Recipients,
	"new recipient": NewRecipients, "new recipients": NewRecipients,
	"byte": Bytes, "bytes": Bytes, "octet": Bytes, "octets": Bytes,
}

// sizes are decimal without an i, as everywhere in relay.toml; largest first.
var sizes = []struct {
	name   string
	octets float64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
}

var windowWords = map[string]time.Duration{
	"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour,
}

// maxWindow bounds windows: one longer than a year is a mistake.
const maxWindow = 366 * 24 * time.Hour

// Limit allows Count of Unit at once and refills over Window. Limits with the same meaning are ==, however written.
type Limit struct {
	Count  int64
	Unit   Unit
	Window time.Duration
}

// ParseLimit parses "60 messages/minute", "2000 recipients/day", "200 new recipients/day" or "2GB/day", in any case. A
// window is a second, minute, hour, day or week, or a duration such as "15m" or "30d".
func ParseLimit(s string) (Limit, error) {
	amount, window, found := strings.Cut(s, "/")
	if !found {
		return Limit{}, fmt.Errorf(`%q has no window; write for example "60 messages/minute" or "2GB/day"`, s)
	}
	count, unit, err := parseAmount(strings.TrimSpace(amount))
	if err != nil {
		return Limit{}, fmt.Errorf("%q: %w", s, err)
	}
	w, err := parseWindow(strings.TrimSpace(window))
	if err != nil {
		return Limit{}, fmt.Errorf("%q: %w", s, err)
	}
	return Limit{Count: count, Unit: unit, Window: w}, nil
}

func parseAmount(s string) (int64, Unit, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end <= 0 {
		return 0, 0, fmt.Errorf("it begins with a number and its unit: " +
			"messages, recipients, new recipients, or a size such as 2GB")
	}
	number, word := s[:end], strings.ToLower(strings.Join(strings.Fields(s[end:]), " "))
	factor := 1.0
	unit, known := unitWords[word]
	for _, size := range sizes {
		if !known && strings.ToLower(size.name) == word {
			unit, known, factor = Bytes, true, size.octets
		}
	}
	if !known {
		return 0, 0, fmt.Errorf("%q is not a unit; "+
			"there are messages, recipients, new recipients, and sizes such as 2GB", word)
	}
	n, err := strconv.ParseFloat(number, 64)
	n *= factor
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("%q is not a number", number)
	case n < 1:
		return 0, 0, fmt.Errorf("a limit of nothing lets nothing pass; to stop a login use \"postern user lock\"")
	case n != math.Trunc(n):
		return 0, 0, fmt.Errorf("%s is not a whole number", strings.TrimSpace(s))
	case n > 1<<53 || n > math.MaxInt:
		return 0, 0, fmt.Errorf("%s is more than can be counted", strings.TrimSpace(s))
	}
	return int64(n), unit, nil
}

func parseWindow(s string) (time.Duration, error) {
	s = strings.ToLower(s)
	if w, ok := windowWords[s]; ok {
		return w, nil
	}
	w, err := parseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a window; "+
			"there are second, minute, hour, day, week, and durations such as 15m or 30d", s)
	case w < time.Second || w > maxWindow:
		return 0, fmt.Errorf("a window lasts between a second and a year")
	case w%time.Second != 0:
		return 0, fmt.Errorf("a window lasts whole seconds")
	}
	return w, nil
}

// parseDuration is time.ParseDuration plus whole days and weeks: "30d", "2w".
func parseDuration(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": windowWords["day"], "w": windowWords["week"]} {
		digits, ok := strings.CutSuffix(s, suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 10)
		return time.Duration(n) * unit, err
	}
	return time.ParseDuration(s)
}

// String returns the limit in the form that ParseLimit reads: "60 messages/minute", "2GB/day".
func (l Limit) String() string {
	return l.amount(l.Count) + "/" + windowString(l.Window)
}

// amount writes n of the limit's unit.
func (l Limit) amount(n int64) string {
	var word string
	switch l.Unit {
	case Bytes:
		return sizeString(n)
	case Recipients:
		word = "recipient"
	case NewRecipients:
		word = "new recipient"
	default:
		word = "message"
	}
	if n != 1 {
		word += "s"
	}
	return strconv.FormatInt(n, 10) + " " + word
}

func sizeString(n int64) string {
	for _, size := range sizes {
		if u := int64(size.octets); n >= u && n%u == 0 {
			return strconv.FormatInt(n/u, 10) + size.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

func windowString(w time.Duration) string {
	for word, d := range windowWords {
		if w == d {
			return word
		}
	}
	for _, u := range []struct {
		suffix string
		unit   time.Duration
	}{{"w", windowWords["week"]}, {"d", windowWords["day"]}, {"h", time.Hour}, {"m", time.Minute}} {
		if w%u.unit == 0 {
			return strconv.FormatInt(int64(w/u.unit), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(w/time.Second), 10) + "s"
}

// perSecond is the rate at which the bucket refills.
func (l Limit) perSecond() float64 { return float64(l.Count) / l.Window.Seconds() }

// MarshalText implements encoding.TextMarshaler.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Limit) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLimit(string(text))
	return err
}
