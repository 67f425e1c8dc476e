package profile

import (
	"fmt"
	"time"
)

// End is something that a provider will not take any more from a day on, for whoever uses it.
type End struct {
	What  string `toml:"what" json:"what"` // Password
	Date  string `toml:"date" json:"date"` // the last day, as in 2026-12-31
	Ahead int    `toml:"ahead_days" json:"ahead_days"`
	Fix   string `toml:"fix" json:"fix"` // what to do instead, sentences

	Provider string `toml:"-" json:"-"` // whose profile says so

	at time.Time
}

// Password is an End that concerns those who log in with a password.
const Password = "password login"

// Ends returns what ends for whoever logs in with a password at a provider, or at a host without a profile.
func Ends(provider, host string, password bool) []End {
	if provider == Generic {
		provider = ForHost(host)
	}
	p, ok := Get(provider)
	if !ok || !password {
		return nil
	}
	return p.Ends
}

// At is when it is over: the end of its day, UTC.
func (e *End) At() time.Time { return e.at }

// Before is how long before it the end matters as much as what is broken.
func (e *End) Before() time.Duration { return time.Duration(e.Ahead) * 24 * time.Hour }

// check reads the date, and refuses what cannot be shown.
func (e *End) check() error {
	day, err := time.Parse(time.DateOnly, e.Date)
	if err != nil || e.What != Password || e.Ahead < 1 || e.Fix == "" {
		return fmt.Errorf("end %q: %q, a date, ahead_days and fix are needed: %v", e.What, Password, err)
	}
	e.at = day.Add(24*time.Hour - time.Second)
	return nil
}
