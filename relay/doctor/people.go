package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postern/auth"
	"postern/relay/finding"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// idleAfter is how long nothing must have been heard of somebody before the doctor asks whether they are still there.
const idleAfter = 90 * 24 * time.Hour

// idlePerson has app passwords that are good, and does nothing.
type idlePerson struct {
	auth.Person
	last time.Time // that they logged in to the page, or made or used an app password
	ends time.Time // the last of their app passwords
}

// people reports whether anybody has an app password that is good, and who of them was not heard of for long.
func (x accountExam) people(ctx context.Context, s *relaystore.Store) (some bool, list []finding.Finding) {
	idle, some, err := x.idle(ctx, s)
	if err != nil {
		return some, nil
	}
	asked := 0
	for _, p := range idle {
		if asked++; asked > maxDevices || len(list) == maxAccounts {
			break
		}
		// They may log in by another password, or by a token.
		events, err := s.Events(ctx, trace.Query{Login: p.Login, Kinds: []trace.Kind{trace.Accepted},
			Since: x.now.Add(-idleAfter), Limit: 1})
		if err != nil {
			return some, list
		}
		if len(events) == 0 {
			list = append(list, p.finding())
		}
	}
	return some, list
}

// idle returns who was not heard of since idleAfter, the longest first, and whether there are good app passwords at
// all. Those of a login that is locked are not good.
func (x accountExam) idle(ctx context.Context, s *relaystore.Store) (idle []idlePerson, some bool, err error) {
	persons, err := s.Persons(ctx)
	if err != nil {
		return nil, false, err
	}
	passwords, err := s.AppPasswords(ctx, "")
	if err != nil {
		return nil, false, err
	}
	barred, err := barred(ctx, s)
	if err != nil {
		return nil, false, err
	}
	known := make(map[string]*idlePerson, len(persons))
	for _, p := range persons {
		known[p.Login] = &idlePerson{Person: p, last: p.Seen}
	}
	for _, k := range passwords {
		p := known[k.Login]
		if p == nil {
			continue
		}
		p.last = latest(p.last, k.Created, k.LastUsed)
		if x.now.Before(k.Expires) {
			p.ends = latest(p.ends, k.Expires)
		}
	}
	for _, p := range known {
		if p.ends.IsZero() || barred[p.Login] {
			continue
		}
		some = true
		if x.now.Sub(p.last) > idleAfter {
			idle = append(idle, *p)
		}
	}
	slices.SortFunc(idle, func(a, b idlePerson) int { return a.last.Compare(b.last) })
	return idle, some, nil
}

// barred are the logins that are locked.
func barred(ctx context.Context, s *relaystore.Store) (map[string]bool, error) {
	locks, err := s.LoginLocks(ctx)
	if err != nil {
		return nil, err
	}
	users, err := s.Users(ctx)
	all := map[string]bool{}
	for _, l := range locks {
		all[l.Login] = true
	}
	for _, u := range users {
		if u.Locked {
			all[u.Login] = true
		}
	}
	return all, err
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

func (p idlePerson) finding() finding.Finding {
	login, ends := said(p.Login), p.ends.Local().Format(time.DateOnly)
	why := "What nobody needs can only be stolen. They work until " + ends + " at the latest, as long as source " +
		said(p.Source) + " has the login."
	if p.Subject != "" {
		why = "If the person has left, nobody tells Postern: the login provider cannot be asked, and they work until " +
			ends + " at the latest."
	}
	return found(codeAppPasswordsIdle, finding.Advice, p.Login,
		fmt.Sprintf("The login %s has app passwords, and nobody has used one or been on the page since %s.", login,
			p.last.Local().Format(time.DateOnly)), why,
		"If the person has left: postern user lock "+login+" --reason left\n"+
			"If they are not needed any more: postern app-password revoke "+login+" --all")
}
