package console

import (
	"strings"
	"time"

	"postern/operate"
)

// limitRow is what is left of a limit, in words.
type limitRow struct {
	operate.LoginLimit
	Text   string
	Where  string // where it counts, as relay.toml names it; "": everywhere
	Except string // the policies where it does not
}

// limitsOf says what is left of the limits of a login.
func limitsOf(v *visit, login string) (rows []limitRow, late bool, err error) {
	l, err := v.console.Operations.Accounts.Limits(v.Context(), v.actor, operate.Everybody, login, v.console.Now())
	for _, limit := range l.Limits {
		where := append([]string{}, limit.Listeners...)
		for _, n := range limit.Networks {
			where = append(where, n.String())
		}
		rows = append(rows, limitRow{limit, limitText(v, &limit), plain(300, strings.Join(where, ", ")),
			plain(300, strings.Join(limit.Except, ", "))})
	}
	return rows, l.Late, err
}

func limitText(v *visit, l *operate.LoginLimit) string {
	per := v.span(time.Duration(l.Window) * time.Second)
	switch l.Unit {
	case "octets":
		return v.t("%s of %s in %s", v.size(l.Used), v.size(l.Count), per)
	case "recipients":
		return v.t("%d of %d recipients in %s", l.Used, l.Count, per)
	case "new recipients":
		return v.t("%d of %d new recipients in %s", l.Used, l.Count, per)
	}
	return v.t("%d of %d messages in %s", l.Used, l.Count, per)
}
