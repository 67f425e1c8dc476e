package replies

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"postern/relay/upstream"
)

// How long to wait, and how long a quota lasts, stand in the text of replies: "try again in 15 minutes", "will reset
// in 21.99 hours", "after Mon, 25 Aug 2025 07:00:31 UTC", "100 messages per hour". A wait needs a word that asks for
// it close by, because "500 messages in 24 hours" asks for none.
const (
	amountWord = `(\d{1,7}(?:[.,]\d{1,6})?|an?|one|eine[rm]?|une?|una)`
	unitWord   = `(milliseconds?|ms|seconds?|secs?|s|sekunden?|secondes?|segundos?|secondi|minutes?|mins?|mn|m|` +
		`minuten?|` +
		`minutos?|minuti|hours?|hrs?|h|stunden?|heures?|horas?|or[ae]|days?|d|tag(?:en?)?|jours?|dias?|giorn[io])`
	// asks are words near which an amount of time is a wait.
	asks = `(?:try|retry|retries|retrying|again|wait|come back|later|re-?send|resets?|renews?|expires?|expire|` +
		`remaining|` +
		`enabled|available|lifted|released|unblocked|unlocked|retry[- ]timeout|erneut|warten|wieder|attendre|` +
		`attendez|` +
		`r.?essay\w+|intente|espere|riprovare)`
	// states are words behind which it is one when "for" or "until" joins them.
	states = `(?:block(?:ed)?|banned|ban|locked|suspended|disabled|throttled|paused|delay(?:ed)?|defer(?:red)?|` +
		`rejected|gr[ae]y-?list(?:ed|ing)?|denied|limited|stopped|gesperrt)`
)

var (
	waitAsked = regexp.MustCompile(`(?i)\b` + asks + `\b[^.!?]{0,25}?[ (=:~]` + amountWord + `[ -]?` + unitWord +
		`\b(?:[ ,]{1,2}(?:and )?(\d{1,4})[ -]?` + unitWord + `\b)?`)
	waitStated = regexp.MustCompile(`(?i)\b` + states +
		` (?:\w+ ){0,2}?(?:for|another|f.?r|pour|por|per) (?:the next |at least |about |another )?` +
		amountWord + `[ -]?` + unitWord + `\b(?:[ ,]{1,2}(?:and )?(\d{1,4})[ -]?` + unitWord + `\b)?`)
	waitBefore = regexp.MustCompile(`(?i)\b(?:in|after|within|for|another) (?:about |at least )?` + amountWord +
		`[ -]?` + unitWord + `\b,? (?:(?:please|and|then) ){0,2}(?:try|retry|re-?send|send|remaining|left)\b`)
	waitClock = regexp.MustCompile(`(?i)\b` + asks + `\b[^.!?]{0,25}?\b(?:in|for) (\d{1,2}):(\d\d)(?::(\d\d))?\b`)
	waitBare  = regexp.MustCompile(`(?i)\b(?:retry[- ]?after|again (?:in|after)|retry in|wait)` +
		`[ :=]{1,2}(\d{1,6})(?:[.,;)] |[.,;)]?$)`)
	waitFew = regexp.MustCompile(`(?i)\b(?:a|some|the next)? ?few (minutes|hours)\b`)

	windowUnit = regexp.MustCompile(`(?i)(?:\b(?:per|every|each|in|within|during|past|last|this|an?|pro|par|por|` +
		`al)\b|/) ?(?:(?:the|any|an?|one|last|past) ){0,2}(\d{1,6})?[ -]?` + unitWord + `\b`)
	windowNumber = regexp.MustCompile(`(?i)\b(\d{1,6})[ -]?` + unitWord +
		`[ -](?:\w+[ -]){0,3}(?:limit|quota|period|window|maximum|allowance)`)
	windowWord = regexp.MustCompile(`(?i)\b(hour|da[iy]l|week|month|today|tages|t.?glich|st.?ndlich|journali|diari)`)
)

// readWait returns how long the text asks to wait, 0 where it does not say.
func readWait(text string, now time.Time) time.Duration {
	if wait := waitUntil(text, now); wait > 0 {
		return wait
	}
	for _, re := range []*regexp.Regexp{waitAsked, waitStated, waitBefore} {
		if wait := amounts(re.FindStringSubmatch(text)); wait > 0 {
			return wait
		}
	}
	if g := waitClock.FindStringSubmatch(text); g != nil {
		return clockWait(g)
	}
	if g := waitBare.FindStringSubmatch(text); g != nil {
		return amount(g[1], "s")
	}
	if g := waitFew.FindStringSubmatch(text); g != nil {
		return 5 * amount("1", g[1])
	}
	return 0
}

// amounts adds up "4 minutes and 32 seconds".
func amounts(g []string) (sum time.Duration) {
	for i := 1; i+1 < len(g); i += 2 {
		if g[i] != "" {
			sum += amount(g[i], g[i+1])
		}
	}
	return sum
}

// clockWait reads 00:04:57, and 04:57 as minutes and seconds.
func clockWait(g []string) time.Duration {
	if g[3] == "" {
		return amount(g[1], "m") + amount(g[2], "s")
	}
	return amount(g[1], "h") + amount(g[2], "m") + amount(g[3], "s")
}

// readWindow returns how long a quota lasts that the text speaks of, 0 where it does not say. Less than a minute is a
// rate.
func readWindow(text string) time.Duration {
	text = waitAsked.ReplaceAllString(text, "")
	d := time.Duration(0)
	if g := windowNumber.FindStringSubmatch(text); g != nil {
		d = amount(g[1], g[2])
	} else if g := windowUnit.FindStringSubmatch(text); g != nil {
		d = amount(g[1], g[2])
	} else if g := windowWord.FindStringSubmatch(text); g != nil {
		d = periodOf(strings.ToLower(g[1]))
	}
	if d < time.Minute {
		return 0
	}
	return min(d, upstream.MaxQuota)
}

// periodOf is the length of a period by its adjective.
func periodOf(word string) time.Duration {
	switch word[:2] {
	case "ho", "st":
		return time.Hour
	case "we":
		return 7 * 24 * time.Hour
	case "mo":
		return 30 * 24 * time.Hour
	}
	return 24 * time.Hour
}

// amount is a number of a unit; a word, or nothing, is one.
func amount(number, unit string) time.Duration {
	n, err := strconv.ParseFloat(strings.Replace(number, ",", ".", 1), 64)
	if err != nil {
		n = 1
	}
	return time.Duration(min(n*float64(unitOf(strings.ToLower(unit))), float64(366*24*time.Hour)))
}

// unitOf is the length of one unit by how its name begins.
func unitOf(unit string) time.Duration {
	switch {
	case strings.HasPrefix(unit, "ms"), strings.HasPrefix(unit, "milli"):
		return time.Millisecond
	case strings.HasPrefix(unit, "st"), strings.HasPrefix(unit, "or"), strings.HasPrefix(unit, "h"):
		return time.Hour
	case strings.HasPrefix(unit, "s"):
		return time.Second
	case strings.HasPrefix(unit, "m"):
		return time.Minute
	}
	return 24 * time.Hour
}
