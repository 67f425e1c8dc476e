package replies

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"postern/relay/upstream"
)

// clockPart is a time of day with its groups: hour, minute, second, a or p, zone.
const clockPart = `(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?: ?([ap])\.?m\b\.?)?` +
	`(?: ?\(?(z|utc|gmt|[+-]\d\d:?\d\d|[a-z]{3,4})\b\)?)?`

// Dates in replies, with the words in front that make them the end of a wait. Where no zone is written UTC is meant.
var (
	untilWord = regexp.MustCompile(`(?i)\b(?:again|retry|try|resets?|renews?|available|expires?|wait|later|blocked|` +
		`suspended|locked|send|resend|lifted|limited|deferred|enabled)\b[^.!?]{0,30}?` +
		`\b(?:after|until|till|at|on|from|by|before)\b:? `)

	isoDate  = regexp.MustCompile(`(?i)^[^\d]{0,12}(\d{4})[-/](\d\d)[-/](\d\d)(?:[T ,]{1,2}` + clockPart + `)?`)
	dayMonth = regexp.MustCompile(`(?i)^(?:[a-z]{3,9},? )?(\d{1,2})(?:st|nd|rd|th)?[ -]([a-z]{3})[a-z]*\.?,?` +
		`[ -](\d{4})(?:,?(?: at)? ` + clockPart + `)?`)
	monthDay = regexp.MustCompile(`(?i)^(?:[a-z]{3,9},? )?([a-z]{3})[a-z]*\.? {1,2}(\d{1,2})(?:st|nd|rd|th)?,? ` +
		`(\d{4})(?:,?(?: at)? ` + clockPart + `)?`)
	unixDate  = regexp.MustCompile(`(?i)^(?:[a-z]{3} )?([a-z]{3}) {1,2}(\d{1,2}) ` + clockPart + ` (\d{4})`)
	numbers   = regexp.MustCompile(`(?i)^(\d{1,2})([./])(\d{1,2})[./](\d{4})(?:,?(?: at)? ` + clockPart + `)?`)
	clockOnly = regexp.MustCompile(`(?i)^` + clockPart)
	epochDate = regexp.MustCompile(`^(1\d{9})\b`)
)

// waitUntil returns how long it is until the date that the text asks to wait for, 0 where there is none to come.
func waitUntil(text string, now time.Time) time.Duration {
	for range 4 {
		at := untilWord.FindStringIndex(text)
		if at == nil {
			return 0
		}
		text = text[at[1]:]
		if t := readDate(text, now); !t.IsZero() && t.After(now) && t.Before(now.Add(upstream.MaxQuota)) {
			return t.Sub(now)
		}
	}
	return 0
}

// readDate reads the date that the text begins with, the zero time for none.
func readDate(text string, now time.Time) time.Time {
	if g := isoDate.FindStringSubmatch(text); g != nil {
		return moment(g[1], g[2], g[3], g[4:])
	}
	if g := epochDate.FindStringSubmatch(text); g != nil {
		n, _ := strconv.ParseInt(g[1], 10, 64)
		return time.Unix(n, 0)
	}
	if g := unixDate.FindStringSubmatch(text); g != nil {
		return moment(g[8], monthNumber(g[1]), g[2], g[3:8])
	}
	if g := dayMonth.FindStringSubmatch(text); g != nil {
		return moment(g[3], monthNumber(g[2]), g[1], g[4:])
	}
	if g := monthDay.FindStringSubmatch(text); g != nil {
		return moment(g[3], monthNumber(g[1]), g[2], g[4:])
	}
	if g := numbers.FindStringSubmatch(text); g != nil {
		day, month := g[1], g[3]
		if g[2] == "/" && number2(month) > 12 || g[2] == "/" && g[8] != "" { // as the United States write it
			day, month = month, day
		}
		return moment(g[4], month, day, g[5:])
	}
	if g := clockOnly.FindStringSubmatch(text); g != nil && g[5] != "" { // without a zone it may be a length: 00:04:57
		today := strings.Split(now.UTC().Format("2006-01-02"), "-")
		t := moment(today[0], today[1], today[2], g[1:])
		if t.Before(now) {
			t = t.Add(24 * time.Hour)
		}
		return t
	}
	return time.Time{}
}

// moment puts a date together; clock is hour, minute, second, a or p, zone, as clockPart has them.
func moment(year, month, day string, clock []string) time.Time {
	y, m, d := number2(year), number2(month), number2(day)
	h, minute, s := number2(clock[0]), number2(clock[1]), number2(clock[2])
	switch strings.ToLower(clock[3]) {
	case "p":
		h = h%12 + 12
	case "a":
		h %= 12
	}
	if m < 1 || m > 12 || d < 1 || d > 31 || h > 24 {
		return time.Time{}
	}
	return time.Date(y, time.Month(m), d, h, minute, s, 0, time.UTC).Add(-zoneOffset(clock[4]))
}

// zoneOffset reads +0200 and the names that North America and Europe write.
func zoneOffset(zone string) time.Duration {
	if strings.HasPrefix(zone, "+") || strings.HasPrefix(zone, "-") {
		digits := strings.ReplaceAll(zone[1:], ":", "")
		d := time.Duration(number2(digits[:2]))*time.Hour + time.Duration(number2(digits[2:]))*time.Minute
		if zone[0] == '-' {
			return -d
		}
		return d
	}
	return time.Duration(zoneNames[strings.ToUpper(zone)]) * time.Hour
}

var zoneNames = map[string]int{"CET": 1, "CEST": 2, "BST": 1, "EET": 2, "EEST": 3, "MSK": 3,
	"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}

const monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

// monthNumber is "0" for a word that is no month.
func monthNumber(name string) string {
	i := strings.Index(monthNames, strings.ToLower(name))
	if i < 0 || i%3 != 0 {
		return "0"
	}
	return strconv.Itoa(i/3 + 1)
}

func number2(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
