package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/store"
)

// Person is somebody who has proved to the page of [self_service] who they are.
type Person struct {
	Login string // as the source or the provider says it
	Name  string // for people
	// Groups and Senders are those of the provider; of who comes by a source, those that it said now.
	Groups  []string
	Senders []string
	Source  string // the [[auth.source]] that their password is of; OIDCSource
	Issuer  string // of OpenID Connect, with Subject: who they are, whatever they are called
	Subject string
}

// OIDCSource is the Source of who comes by OpenID Connect.
const OIDCSource = "oidc"

// Bounds of what a provider says of a person.
const (
	maxPersonGroups  = 1000
	maxPersonSenders = 100
	maxSubject       = 600 // octets of issuer and sub together
)

// Enrol notes who has logged in to the page, and returns who they are there. It is called after each login, before
// anything else. A login that others have is a Conflict; who is in none of the groups of [self_service] is forbidden.
// The audit has the first login of each.
func (a AppPasswords) Enrol(ctx context.Context, by Actor, p Person) (record auth.Person, err error) {
	if by.Channel != SelfService {
		return record, fmt.Errorf("only who logs in to the page is enrolled: %w", ErrForbidden)
	}
	if by.Name, err = CheckLogin(p.Login); err != nil {
		return record, err
	}
	if !mayUse(a.Config().SelfService.Groups, p.Groups) {
		return record, fmt.Errorf("%s is in none of the groups of [self_service]: %w", by.Name, ErrForbidden)
	}
	if record, err = a.record(ctx, by.Name, p); err != nil {
		return record, err
	}
	var ended []auth.AppPassword
	had, err := a.Store.Person(ctx, by.Name)
	switch {
	case errors.Is(err, store.ErrNoAppPassword), err == nil && had.Seen.IsZero():
		err = a.act(ctx, by, EnrolPerson, by.Name, func(ctx context.Context, detail *string) (err error) {
			*detail = "by source " + p.Source
			if record.Subject != "" {
				*detail = "by " + p.Issuer + ", sub " + p.Subject
			}
			ended, err = a.Store.PutPerson(ctx, record)
			return a.bound(by.Name, err)
		})
	case err == nil:
		ended, err = a.Store.PutPerson(ctx, record)
		err = a.bound(by.Name, err)
	}
	if err != nil {
		return record, err
	}
	return record, a.note(ctx, moved(by, record, ended)...)
}

// record is what is kept of a person.
func (a AppPasswords) record(ctx context.Context, login string, p Person) (auth.Person, error) {
	r := auth.Person{Login: login, Name: mail.Printable(mail.Cut(p.Name, maxNamed)), Source: p.Source,
		Seen: time.Now()}
	if p.Source != OIDCSource || p.Issuer == "" {
		return r, nil // its source is asked whenever it counts
	}
	if p.Subject == "" || len(p.Issuer)+len(p.Subject) > maxSubject {
		return r, fault(Invalid, "the login provider says no sub, or one that is too long")
	}
	r.Subject = p.Issuer + " " + p.Subject
	for _, s := range p.Senders[:min(len(p.Senders), maxPersonSenders)] {
		if policy.IsSenderAddress(s) {
			r.Senders = addOnce(r.Senders, s)
		}
	}
	for _, g := range p.Groups[:min(len(p.Groups), maxPersonGroups)] {
		if g != "" && g == mail.Printable(g) {
			r.Groups = addOnce(r.Groups, g)
		}
	}
	return r, a.notTaken(ctx, login)
}

// notTaken refuses a login that a source of passwords has: whoever the provider calls so must not send as it.
func (a AppPasswords) notTaken(ctx context.Context, login string) error {
	id, err := a.lookup(ctx, login)
	switch {
	case errors.Is(err, auth.ErrUnknownLogin):
		return nil
	case err == nil, errors.Is(err, auth.ErrLocked):
		source := id.Source
		if source == "" {
			source = "[[auth.source]]"
		}
		return fault(Conflict, "the login %s is an account of %s already, and the login provider of "+
			"[self_service.oidc] "+
			"may not give it to somebody: remove that account, or let its people log in to the page with its password "+
			"(sources in [self_service])", login, source)
	}
	return fmt.Errorf("whether the login %s is taken cannot be said now: %w", login, err)
}

// lookup asks the sources of passwords who a login is.
func (d *desk) lookup(ctx context.Context, login string) (auth.Identity, error) {
	if d.Options.Lookup != nil {
		return d.Options.Lookup(ctx, login)
	}
	u, err := d.Store.User(ctx, login)
	id := u.Identity()
	id.Source = config.SourceStore
	if err == nil && u.Locked {
		err = auth.ErrLocked
	}
	return id, err
}

// personFor is whose app password is to be made.
func (a AppPasswords) personFor(ctx context.Context, by Actor, login string) (auth.Person, error) {
	switch lock, err := a.Store.LoginLock(ctx, login); {
	case err == nil:
		return auth.Person{}, fault(Conflict, "%s is locked (%s); unlock it first: postern user unlock %s", login,
			lock.Reason, login)
	case !errors.Is(err, auth.ErrUnknownLogin):
		return auth.Person{}, err
	}
	p, err := a.Store.Person(ctx, login)
	known := err == nil
	switch {
	case err != nil && !errors.Is(err, store.ErrNoAppPassword):
		return p, err
	case known && (by.Channel == SelfService || p.Subject != ""):
		return p, nil
	case by.Channel == SelfService:
		return p, forgotten(login)
	}
	id, err := a.lookup(ctx, login)
	switch {
	case errors.Is(err, auth.ErrUnknownLogin):
		return p, fault(NotFound, "there is no login %s in a source that can be asked about it, and nobody has logged "+
			"in to the page of [self_service] as it", mail.Printable(login))
	case errors.Is(err, auth.ErrLocked):
		return p, fault(Conflict, "%s is locked", mail.Printable(login))
	case err != nil:
		return p, err
	}
	if id.Login != "" && id.Login != login {
		return p, fault(Conflict, "the source %s calls %s by the login %s: write that", id.Source,
			mail.Printable(login), mail.Printable(id.Login))
	}
	p.Login, p.Source = login, id.Source
	return p, nil
}

// forgotten refuses who was known here, and is not any more.
func forgotten(login string) error {
	return fault(Conflict, "log in again: %s is not known here any more", mail.Printable(login))
}

// bound puts in words that a login is somebody else's.
func (a AppPasswords) bound(login string, err error) error {
	b, ok := errors.AsType[*store.BoundError](err)
	switch {
	case !ok:
		return err
	case b.Login != login:
		return fault(Conflict, "you are known here as %s, and now called %s: an administrator releases the old login "+
			"with "+
			"\"postern app-password forget %s\", which ends its app passwords", b.Login, login, b.Login)
	}
	return fault(Conflict, "the login %s belongs to somebody else here; if that person is gone or was given another "+
		"account, an administrator releases it with \"postern app-password forget %s\", which ends its app passwords",
		login, login)
}

// Forget releases a login, with all its app passwords, and returns how many there were. Whoever logs in to the page
// next as this login has it then.
func (a AppPasswords) Forget(ctx context.Context, by Actor, login string) (n int, err error) {
	if login, err = CheckLogin(login); err != nil {
		return 0, err
	}
	err = a.act(ctx, by, ReleaseLogin, login, func(ctx context.Context, detail *string) error {
		n, err = a.Store.ForgetPerson(ctx, login)
		if errors.Is(err, store.ErrNoAppPassword) {
			return fault(NotFound, "nobody has logged in to the page of [self_service] as %s, and it has no app "+
				"passwords",
				mail.Printable(login))
		}
		if err != nil {
			return err
		}
		return a.note(ctx, event(by, login, fmt.Sprintf("released, with %d app passwords", n)))
	})
	return n, err
}
