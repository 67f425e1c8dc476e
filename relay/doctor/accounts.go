package doctor

import (
	"context"
	"fmt"
	"time"

	"postern/auth"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/finding"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// accountExam looks at accounts.
type accountExam struct{ *exam }

// Bounds of the look at accounts.
const (
	maxAccounts = 20             // that are named of one kind
	maxDevices  = 200            // that the trace is asked about
	unseenAfter = 24 * time.Hour // a new device has this long to send its first message
)

// accounts looks at who may not log in or send.
func (x accountExam) accounts(ctx context.Context) (list []finding.Finding) {
	s, err := x.openStore(ctx)
	if err != nil {
		return nil // store says so
	}
	var users []auth.User
	var people []auth.Person
	if s != nil {
		defer s.Close()
		if users, err = s.Users(ctx); err != nil {
			return nil
		}
		if people, err = s.ProvidedPersons(ctx); err != nil {
			return nil
		}
		some, idle := x.people(ctx, s)
		if len(users) == 0 && some {
			return append(idle, fine(codeAccountsOK, "accounts", "The accounts are in other sources."))
		}
		list = idle
	}
	if len(users) == 0 {
		return x.nobody()
	}
	list = append(list, x.locked(users)...)
	list = append(list, x.lockedOut(ctx, s)...)
	if silent := check.SilentLogins(x.c, users, people...); len(silent) > 0 {
		for _, login := range silent[:min(len(silent), maxAccounts)] {
			list = append(list, found(codeLoginSilent, finding.Fault, said(login),
				fmt.Sprintf("The login %s may send with "+
					"no address.", said(login)),
				"All its mail is refused (550): it is no address itself, and neither its account "+
					"nor a [[policy]] gives it one.", "postern user set "+said(login)+" --sender ADDRESS"))
		}
	}
	list = append(list, x.unseen(ctx, s, users)...)
	list = append(list, x.unreached(users)...)
	if len(list) == 0 {
		list = append(list, fine(codeAccountsOK, "accounts", "%s, none locked, each with an address to send "+
			"from.", count(len(users), "account")))
	}
	return list
}

func (x accountExam) nobody() []finding.Finding {
	if len(x.c.Auth.Sources) > 1 || x.c.Auth.Sources[0].Type != config.SourceStore {
		return []finding.Finding{fine(codeAccountsOK, "accounts", "The accounts are in other sources.")}
	}
	for _, l := range x.c.Listeners {
		if l.Auth == config.AuthRequired {
			return []finding.Finding{found(codeAccountNone, finding.Fault, "accounts", "There is no account yet, and "+
				"listener "+l.Name+" wants a login.", "Nobody can send there.",
				"For a person: postern user add anna@example.com\nFor a printer or program: postern device "+
					"add scanner-2 --sender scans@example.com")}
		}
	}
	return []finding.Finding{fine(codeAccountsOK, "accounts", "No listener wants a login.")}
}

func (x accountExam) locked(users []auth.User) (list []finding.Finding) {
	for _, u := range users {
		if !u.Locked || len(list) == maxAccounts {
			continue
		}
		list = append(list, found(codeLoginLocked, finding.Fault, said(u.Login),
			fmt.Sprintf("The login %s is locked: %s",
				said(u.Login), sentence(said(u.LockReason))), "It cannot log in, so nothing of it is sent.",
			"If it was locked because it sent too much, look first whether its password was stolen: postern "+
				"trace --login "+
				said(u.Login)+"\nGive it a new password (postern user password "+said(u.Login)+
				") and unlock it: postern "+
				"user unlock "+said(u.Login)))
	}
	return list
}

// lockedOut says who had too many wrong passwords.
func (x accountExam) lockedOut(ctx context.Context, s *relaystore.Store) (list []finding.Finding) {
	locks, err := s.Lockouts(ctx, x.now)
	if err != nil {
		return nil
	}
	for _, l := range locks[:min(len(locks), maxAccounts)] {
		who, what := said(l.Login), "The login "+said(l.Login)
		if l.Login == "" {
			who = l.Client.Addr().String()
			what = "The address " + who
		}
		list = append(list, found(codeLockout, finding.Advice, who,
			fmt.Sprintf("%s is locked out until %s after %s.", what,
				l.Until.Local().Format("2006-01-02 15:04"), count(l.Failures, "wrong password")),
			"Either somebody guesses passwords, or a device has an old one and cannot send.",
			"See what was tried: postern trace --kind auth-fail\nIf it is one of yours: postern user unlock "+who))
	}
	return list
}

// unseen says which devices were set up and have never sent, as far as the trace goes back.
func (x accountExam) unseen(ctx context.Context, s *relaystore.Store, users []auth.User) (list []finding.Finding) {
	asked := 0
	for _, u := range users {
		age := x.now.Sub(u.Created)
		if !u.Device || u.Locked || age < unseenAfter || age > x.c.Store.History.Std() || len(list) == maxAccounts {
			continue
		}
		if asked++; asked > maxDevices {
			break
		}
		events, err := s.Events(ctx, trace.Query{Login: u.Login, Kinds: []trace.Kind{trace.Accepted, trace.Rejected},
			Limit: 1})
		if err != nil {
			return list
		}
		if len(events) > 0 {
			continue
		}
		list = append(list, found(codeDeviceUnseen, finding.Advice, said(u.Login),
			fmt.Sprintf("The device %s was added on "+
				"%s and has sent nothing since.", said(u.Login), u.Created.Local().Format(time.DateOnly)),
			"It may not be set up, or cannot connect or log in.", "See what it tried: postern trace --login "+
				said(u.Login)+"\nIf it is not needed any more: postern device remove "+said(u.Login)))
	}
	return list
}
