package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"postern/auth"
	"postern/mail"
	"postern/relay/alert"
)

// lockLinger is how long the alert outlives a lockout: repeated guessing is one condition.
const lockLinger = time.Hour

// LockedOut alerts that somebody is guessing passwords.
func (m *Monitor) LockedOut(l auth.Lock) {
	login := mail.Printable(mail.Cut(l.Login, 256))
	c := alert.Condition{
		Event: alert.LoginLocked, Until: l.Until.Add(lockLinger),
		Over:    "There has been no further lockout for an hour.",
		Details: map[string]string{"login": login, "until": clock(l.Until), "failures": fmt.Sprint(l.Failures)},
	}
	from := "others"
	if l.Client.IsValid() {
		from = lockedAddress(l)
		c.Details["client"] = from
	}
	c.Subject = lockSubject(l)
	until := l.Until.UTC().Format("15:04 MST")
	login, plain := loginInWords(login)
	guessed := "a generated one cannot be guessed: postern user password " + login
	if !plain {
		guessed = "a generated one cannot be guessed"
	}
	switch {
	case login == "":
		c.Group = "addresses"
		c.Summary = fmt.Sprintf("From %s came %d different wrong passwords: it is locked out until %s. What to do: "+
			"if it is yours, look for a device with an old password there, then run: postern user unlock %s; else "+
			"keep it out with a firewall. See: postern trace --kind auth-fail", from, l.Failures, until, from)
	case !l.Client.IsValid() && isNobodys(m.Lookup, l.Login):
		// a group of their own: what guessers make up must not hide accounts
		c.Group = "logins that nobody has"
		c.Summary = fmt.Sprintf("Somebody tried %d different wrong passwords for login %s, which nobody has here. "+
			"What to do: nothing, unless one of your devices has a mistyped login. See: postern trace --kind auth-fail",
			l.Failures, login)
	case !l.Client.IsValid():
		c.Group = "logins"
		c.Summary = fmt.Sprintf("Somebody tried %d different wrong passwords for login %s: until %s it is open only "+
			"to addresses that it was used from before. What to do: if its owner has not forgotten the password, "+
			"somebody guesses it; %s", l.Failures, login, until, guessed)
	default:
		c.Group = "logins"
		c.Summary = fmt.Sprintf("From %s, where login %s is used, came %d different wrong passwords for it: it is "+
			"locked out there until %s. What to do: look for a device or program there with an old password.",
			from, login, l.Failures, until)
	}
	m.alerter.Begin(c)
}

// Lifted closes the alert of a lockout that an operator has ended.
func (m *Monitor) Lifted(l auth.Lock) {
	m.alerter.End(alert.LoginLocked, lockSubject(l), "A person has ended the lockout.")
}

func lockSubject(l auth.Lock) string {
	login, _ := loginInWords(mail.Printable(mail.Cut(l.Login, 256)))
	switch {
	case l.Login == "":
		return "address " + lockedAddress(l)
	case !l.Client.IsValid():
		return "login " + login
	}
	return "login " + login + " from " + lockedAddress(l)
}

// lockedAddress is an address as people write it, or the network that is locked with it.
func lockedAddress(l auth.Lock) string {
	if l.Client.IsSingleIP() {
		return l.Client.Addr().String()
	}
	return l.Client.String()
}

// lookupTime bounds the lookup of the login that a lockout is about.
const lookupTime = 2 * time.Second

// isNobodys reports that no source knows a login. If the sources cannot be asked, it counts as somebody's.
func isNobodys(lookup func(context.Context, string) (auth.Identity, error), login string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	_, err := lookup(ctx, login)
	return errors.Is(err, auth.ErrUnknownLogin)
}

// loginInWords quotes a login for use in a sentence. Attackers choose logins, and people paste commands and follow
// links: a login that is not plain is quoted, loses its link, and must not appear in a command.
func loginInWords(login string) (words string, plain bool) {
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("@._+-", r)
	}
	if !strings.ContainsFunc(login, odd) && !strings.HasPrefix(login, "-") {
		return login, true
	}
	return strconv.Quote(strings.ReplaceAll(login, "://", ": //")), false
}

// LimitReached alerts that a login was locked for exceeding a limit, as its policy asks.
func (m *Monitor) LimitReached(login, why string) {
	c := alert.Condition{
		Event: alert.LoginLocked, Subject: limitSubject(login), Group: "limits",
		Summary: fmt.Sprintf("Login %s was locked: %s. Its password may be in other hands. What to do: look at what "+
			"it sent with postern trace --login %s, give it a new password, then run: postern user unlock %s",
			login, why, login, login),
		Over:    "The login was unlocked or removed.",
		Details: map[string]string{"login": login, "reason": why},
	}
	m.alerter.Begin(c)
}

func limitSubject(login string) string { return "login " + login + ", over a limit" }

// Accounts closes the alerts about logins that an operator has dealt with: over a limit and now unlocked, or guessed at
// and changed after since.
func (m *Monitor) Accounts(users []auth.User, since time.Time) {
	for _, c := range m.alerter.Open(alert.LoginLocked) {
		login := c.Details["login"]
		i := slices.IndexFunc(users, func(u auth.User) bool { return u.Login == login })
		switch {
		case login == "":
		case c.Subject == limitSubject(login):
			if c.Until.IsZero() && (i < 0 || !users[i].Locked) {
				m.alerter.End(c.Event, c.Subject, "")
			}
		case i >= 0 && !since.IsZero() && users[i].Changed.After(since):
			m.alerter.End(c.Event, c.Subject, "A person has changed the account: the lockout has ended.")
		}
	}
}
