package monitor

import (
	"fmt"

	"postern/mail"
	"postern/relay/alert"
)

// SourceTrouble is a source of logins that is down, or a password file that could not be read again.
type SourceTrouble struct {
	Name string
	Err  error
	File bool
}

// LoginSources alerts of sources of logins: list is all that is wrong with them now.
func (m *Monitor) LoginSources(list []SourceTrouble) {
	var hold []alert.Condition
	for _, s := range list {
		why := mail.Printable(mail.Cut(s.Err.Error(), 500))
		c := alert.Condition{Event: alert.LoginSource, Subject: "source " + s.Name, Group: "sources",
			Details: map[string]string{"source": s.Name, "reason": why}}
		if s.File {
			c.Summary = fmt.Sprintf("The password file of source %s was changed and is not taken: %s. What was read "+
				"before stays in force. What to do: mend that line; the file is read again by itself.", s.Name, why)
			c.Over = "The password file was read."
		} else {
			c.Summary = fmt.Sprintf("Source %s cannot say who may log in: %s. Its logins get 454 and their programs "+
				"try again; nobody is locked out for it. What to do: see that it runs and can be reached from here, "+
				"then run: postern doctor --only sources", s.Name, why)
			c.Over = "Source " + s.Name + " answers again."
		}
		hold = append(hold, c)
	}
	m.alerter.Set(alert.LoginSource, hold)
}
