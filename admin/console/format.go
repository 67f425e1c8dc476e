package console

import (
	"fmt"
	"time"

	"golang.org/x/text/number"

	"postern/mail"
)

// clock is how a language writes times: on the same day, within a year, and whole.
type clock struct{ day, year, older, whole string }

var clocks = map[string]clock{
	"en": {"15:04:05", "2 Jan 15:04", "2 Jan 2006", "Mon 2 Jan 2006 15:04:05 MST"},
	"de": {"15:04:05", "02.01. 15:04", "02.01.2006", "02.01.2006 15:04:05 MST"},
}

// short is a time as tables have it, in the server's zone.
func (w *words) short(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	apart := now.Sub(t).Abs()
	switch {
	case t.YearDay() == now.YearDay() && t.Year() == now.Year():
		return t.Format(w.clock.day)
	case apart < 180*24*time.Hour:
		return t.Format(w.clock.year)
	}
	return t.Format(w.clock.older)
}

// day is the date of a time, in the server's zone.
func (w *words) day(t time.Time) string { return t.Local().Format(w.clock.older) }

// whole is a time with all that is known of it.
func (w *words) whole(t time.Time) string { return t.Local().Format(w.clock.whole) }

// stamp is a time as machines read it.
func stamp(t time.Time) string { return t.Local().Format(time.RFC3339) }

// span is how long something lasts, in the unit a person would use.
func (w *words) span(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Minute:
		return w.t("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return w.t("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return w.t("%d h", int(d.Hours()))
	}
	return w.t("%d days", int(d.Hours()/24))
}

// size is a number of octets.
func (w *words) size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 999.5 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	digits := 0
	if i > 0 && f < 9.95 {
		digits = 1
	}
	return w.printer.Sprintf("%v\u00a0%s", number.Decimal(f, number.MaxFractionDigits(digits)), units[i])
}

// num is a whole number.
func (w *words) num(n any) string { return w.printer.Sprintf("%d", n) }

// plain is a text from outside: of one line, printable and bounded. html/template escapes it.
func plain(n int, v any) string { return mail.Cut(mail.Printable(fmt.Sprint(v)), n) }
