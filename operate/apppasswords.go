package operate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postern/auth"
	"postern/internal/suggest"
	"postern/mail"
	"postern/relay/store"
	"postern/relay/trace"
)

// AppPasswords is what may be done with the passwords that people have for their devices and programs, beside the one
// that they log in with.
type AppPasswords struct{ *desk }

// AppPassword is one as people see it: without anything of the password.
type AppPassword struct {
	ID       string         `json:"id"`
	Login    string         `json:"login"`
	Name     string         `json:"name"`
	Networks []netip.Prefix `json:"networks,omitempty"`
	Created  time.Time      `json:"created"`
	Expires  time.Time      `json:"expires"`
	LastUsed time.Time      `json:"last_used,omitzero"` // to ten minutes
	LastFrom string         `json:"last_from,omitempty"`
}

// Expired reports whether it is good no longer.
func (k AppPassword) Expired(now time.Time) bool { return !now.Before(k.Expires) }

// NewAppPassword is one to be made.
type NewAppPassword struct {
	Login    string
	Name     string // of the device or program, at most maxAppName characters
	Networks []string
	Expires  time.Time // zero: as late as [self_service] allows
}

// NewAppCredential is an app password that was made, with the password, which is shown once.
type NewAppCredential struct {
	Credential
	AppPassword AppPassword `json:"app_password"`
}

// maxAppName bounds the name of an app password, in characters.
const maxAppName = 100

// appIDLength is that of an ID, 40 bits in base32: it names one of a login's 50 and is no secret.
const appIDLength = 8

func shownAppPassword(k auth.AppPassword) AppPassword {
	return AppPassword{k.ID, k.Login, k.Name, k.Networks, k.Created, k.Expires, k.LastUsed, k.LastFrom}
}

// own returns a login as it is kept, and refuses that of others to who acts for themself.
func (a AppPasswords) own(by Actor, login string) (string, error) {
	if by.Channel == SelfService && login != by.Name {
		return "", fmt.Errorf("the app passwords of others: %w", ErrForbidden)
	}
	return CheckLogin(login)
}

// List returns the app passwords of a login, or with "" of all, the newest first.
func (a AppPasswords) List(ctx context.Context, by Actor, login string) ([]AppPassword, error) {
	if err := by.May(SeeAppPasswords); err != nil {
		return nil, err
	}
	if login != "" || by.Channel == SelfService {
		var err error
		if login, err = a.own(by, login); err != nil {
			return nil, err
		}
	}
	stored, err := a.Store.AppPasswords(ctx, login)
	if err != nil {
		return nil, err
	}
	list := make([]AppPassword, len(stored))
	for i, k := range stored {
		list[i] = shownAppPassword(k)
	}
	return list, nil
}

// check returns what can be said of it before it is made.
func (n NewAppPassword) check(now time.Time, oldest time.Duration) (k auth.AppPassword, err error) {
	k = auth.AppPassword{Login: n.Login, Name: strings.TrimSpace(n.Name), Created: now, Expires: n.Expires}
	switch length := utf8.RuneCountInString(k.Name); {
	case k.Name == "":
		return k, fault(Invalid, "a name is needed, such as \"Canon in the hall\": it is how you find this password "+
			"again")
	case length > maxAppName || mail.Printable(k.Name) != k.Name:
		return k, fault(Invalid, "the name has %d characters or some that cannot be printed, write at most %d plain "+
			"ones",
			length, maxAppName)
	}
	if k.Networks, err = ParseNetworks(n.Networks); err != nil {
		return k, fault(Invalid, "%v", err)
	}
	last := now.Add(oldest)
	switch {
	case k.Expires.IsZero():
		k.Expires = last
	case !now.Before(k.Expires):
		return k, fault(Invalid, "it would have expired at %s already", k.Expires.Format(time.DateTime))
	case k.Expires.After(last.Add(24 * time.Hour)): // a day is given as its end, wherever people are
		return k, fault(Invalid, "it may not last longer than until %s, since [self_service] max_age is %s",
			last.Format(time.DateOnly), oldest)
	case k.Expires.After(last):
		k.Expires = last
	}
	return k, nil
}

// Add makes an app password. Who acts for themself must have been enrolled; the login of an operator's must be one that
// a source can be asked about, or of somebody who was enrolled. A name that the login has already, and one too many,
// are a Conflict.
func (a AppPasswords) Add(ctx context.Context, by Actor, n NewAppPassword) (c NewAppCredential, err error) {
	login, err := a.own(by, n.Login)
	if err != nil {
		return c, err
	}
	n.Login = login
	block := a.Config().SelfService
	k, err := n.check(time.Now(), block.MaxAge.Std())
	if err != nil {
		return c, err
	}
	err = a.act(ctx, by, AddAppPassword, n.Login, func(ctx context.Context, detail *string) error {
		p, err := a.personFor(ctx, by, n.Login)
		if err != nil {
			return err
		}
		k.Login = p.Login
		*detail = fmt.Sprintf("%s, until %s", k.Name, k.Expires.UTC().Format(time.DateOnly))
		c, err = a.add(ctx, by, p, k, block.MaxPasswords)
		return err
	})
	if err != nil {
		return NewAppCredential{}, err
	}
	return c, nil
}

// add stores an app password that was checked.
func (a AppPasswords) add(ctx context.Context, by Actor, p auth.Person, k auth.AppPassword, most int) (
	c NewAppCredential, err error) {
	pepper, err := a.Store.Secret(ctx, auth.PepperName, auth.PepperSize)
	if err != nil {
		return c, err
	}
	// Devices keep no more of a password than one of theirs has.
	secret := generate(pepper, true)
	k.ID, k.Hash = strings.ToLower(rand.Text()[:appIDLength]), secret.hash
	ended, err := a.Store.AddAppPassword(ctx, p, k, most, k.Created)
	switch {
	case errors.Is(err, store.ErrExists):
		return c, fault(Conflict, "%s has an app password with the name %s already: write another name, or revoke "+
			"that "+
			"one first", k.Login, k.Name)
	case errors.Is(err, store.ErrTooMany):
		return c, fault(Conflict, "%s has %d app passwords, as many as may be: revoke one that is not needed", k.Login,
			most)
	case errors.Is(err, store.ErrNoAppPassword):
		return c, forgotten(k.Login)
	case err != nil:
		return c, a.bound(k.Login, err)
	}
	c = NewAppCredential{secret.shown(k.Login), shownAppPassword(k)}
	c.warn(a.note(ctx, append(moved(by, p, ended), event(by, k.Login, "app password made ("+k.Name+")"))...))
	return c, nil
}

// named are the names of app passwords, for the trace.
func named(list []auth.AppPassword) string {
	names := make([]string, len(list))
	for i, k := range list {
		names[i] = k.Name
	}
	return "(" + mail.Cut(strings.Join(names, ", "), 300) + ")"
}

// moved traces app passwords that have ended since their login is of another source now.
func moved(by Actor, p auth.Person, ended []auth.AppPassword) []trace.Event {
	if len(ended) == 0 {
		return nil
	}
	return []trace.Event{event(by, p.Login, "app password ended "+named(ended)+", since the login is one of source "+
		p.Source+" now; noticed")}
}

// Revoke ends one of a login, with the sessions that it opened. NotFound if there is none.
func (a AppPasswords) Revoke(ctx context.Context, by Actor, login, id string) error {
	if id == "" {
		return fault(Invalid, "name the app password by its id; see: postern app-password list %s",
			mail.Printable(login))
	}
	_, err := a.revoke(ctx, by, login, id)
	return err
}

// RevokeAll ends all of a login, and returns how many there were.
func (a AppPasswords) RevokeAll(ctx context.Context, by Actor, login string) (int, error) {
	return a.revoke(ctx, by, login, "")
}

func (a AppPasswords) revoke(ctx context.Context, by Actor, login, id string) (n int, err error) {
	if login, err = a.own(by, login); err != nil {
		return 0, err
	}
	err = a.act(ctx, by, RevokeAppPassword, login, func(ctx context.Context, detail *string) error {
		*detail = "all"
		if id != "" {
			*detail = mail.Printable(mail.Cut(id, maxNamed))
		}
		gone, err := a.Store.RevokeAppPasswords(ctx, login, id)
		if errors.Is(err, store.ErrNoAppPassword) {
			return a.unknownApp(ctx, login, id)
		}
		if err != nil {
			return err
		}
		n = len(gone)
		return a.note(ctx, event(by, login, "app password revoked "+named(gone)))
	})
	return n, err
}

// unknownApp says that there is no such app password, and which one may have been meant.
func (a AppPasswords) unknownApp(ctx context.Context, login, id string) error {
	list, err := a.Store.AppPasswords(ctx, login)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return fault(NotFound, "%s has no app password", mail.Printable(login))
	}
	var ids []string
	for _, k := range list {
		ids = append(ids, k.ID)
	}
	return fault(NotFound, "%s has no app password %s%s", mail.Printable(login),
		mail.Printable(mail.Cut(id, maxNamed)), suggest.Question(id, ids))
}

// mayUse reports whether somebody with these groups may use the page.
func mayUse(needed, groups []string) bool {
	return len(needed) == 0 || slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(needed, g) })
}
