package operate

import (
	"context"
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
	"postern/policy"
	"postern/relay/config"
	"postern/relay/store"
)

// Accounts is what may be done with logins and devices.
type Accounts struct{ *desk }

// Among says which accounts an operation is for.
type Among uint8

// Which accounts.
const (
	Everybody   Among = iota
	DevicesOnly       // and nothing else
)

// check refuses an account that an operation is not for.
func (of Among) check(u auth.User) error {
	if of == DevicesOnly && !u.Device {
		return fault(Conflict, "%s is not a device but the account of a person", u.Login)
	}
	return nil
}

// CheckLogin returns a login as it is kept. Other sources have logins that nobody could add to the store, such as
// o'brien@example.com: they are logins all the same.
func CheckLogin(login string) (string, error) {
	if normal, ok := auth.NormalizeLogin(login); ok {
		return normal, nil
	}
	return newLogin(login) // which says why it is none
}

// newLogin returns a login as it is kept that may be added to the store.
func newLogin(login string) (string, error) {
	normal, err := auth.CheckLogin(login)
	if err != nil {
		return "", fault(Invalid, "%v", err)
	}
	return normal, nil
}

// List returns the accounts, and who is locked out for a while.
func (a Accounts) List(ctx context.Context, by Actor, of Among) ([]auth.User, []auth.Lock, error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, nil, err
	}
	users, err := a.Store.Users(ctx)
	if err != nil {
		return nil, nil, err
	}
	locks, err := a.Store.Lockouts(ctx, time.Now())
	if err != nil || of == Everybody {
		return users, locks, err
	}
	users = slices.DeleteFunc(users, func(u auth.User) bool { return !u.Device })
	locks = slices.DeleteFunc(locks, func(l auth.Lock) bool {
		return !slices.ContainsFunc(users, func(u auth.User) bool { return u.Login == l.Login })
	})
	return users, locks, nil
}

// Get returns one account.
func (a Accounts) Get(ctx context.Context, by Actor, of Among, login string) (auth.User, error) {
	if err := by.May(SeeAccounts); err != nil {
		return auth.User{}, err
	}
	login, err := CheckLogin(login)
	if err != nil {
		return auth.User{}, err
	}
	u, err := a.Store.User(ctx, login)
	switch {
	case errors.Is(err, auth.ErrUnknownLogin):
		return u, a.unknown(ctx, of, login)
	case err != nil:
		return u, err
	}
	return u, of.check(u)
}

// unknown says that there is no such login, and which one may have been meant.
func (a Accounts) unknown(ctx context.Context, of Among, login string) error {
	users, err := a.Store.Users(ctx)
	if err != nil {
		return err
	}
	var logins []string
	for _, u := range users {
		if of.check(u) == nil {
			logins = append(logins, u.Login)
		}
	}
	return fault(NotFound, "there is no login %s%s", mail.Printable(login), suggest.Question(login, logins))
}

// NewAccount is an account to be added.
type NewAccount struct {
	Login           string
	Device          bool
	Senders, Groups []string
	Networks        []string
	Note            string
	Password        string // "": one is generated
	WithoutSender   bool   // it is added even if it may send as nobody yet
}

// Credential is a login with its new password.
type Credential struct {
	Login    string `json:"login"`
	Password string `json:"password,omitempty"` // that was generated, to be shown once; "" where it was chosen
	Warning  string `json:"warning,omitempty"`  // about the one that was chosen, or what went wrong behind it
}

// warn adds what went wrong once the password was stored: an error would take the password with it, which nobody can
// read again.
func (c *Credential) warn(err error) {
	switch {
	case err == nil:
	case c.Warning == "":
		c.Warning = err.Error()
	default:
		c.Warning += "; " + err.Error()
	}
}

// check returns the account, without a password, or everything that is wrong with it.
func (n NewAccount) check() (auth.User, error) {
	login, err := newLogin(n.Login)
	senders, err1 := checkedSenders(n.Senders)
	networks, err2 := ParseNetworks(n.Networks)
	groups, err3 := checkedGroups(n.Groups)
	if err := errors.Join(err, err1, err2, err3, checkNote(n.Note)); err != nil {
		return auth.User{}, fault(Invalid, "%v", err)
	}
	return auth.User{Login: login, Device: n.Device, Senders: senders, Networks: networks, Groups: groups,
		Note: mail.Printable(n.Note)}, nil
}

// Check returns what is wrong with an account, nil if it could be added.
func (n NewAccount) Check() error {
	_, err := n.check()
	return err
}

// Add adds an account. One that exists is a Conflict.
func (a Accounts) Add(ctx context.Context, by Actor, n NewAccount) (c Credential, err error) {
	u, err := n.check()
	if err != nil {
		return c, err
	}
	if !n.WithoutSender && by.May(AddAccount) == nil {
		if err := checkSends(a.Config(), u); err != nil {
			return c, err
		}
	}
	err = a.act(ctx, by, AddAccount, u.Login, func(ctx context.Context, detail *string) error {
		*detail = KindOfAccount(u)
		c, err = a.create(ctx, by, u, n.Password)
		return err
	})
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

// create makes an account that was checked.
func (d *desk) create(ctx context.Context, by Actor, u auth.User, password string) (c Credential, err error) {
	secret, err := d.credential(ctx, u, password)
	if err != nil {
		return c, err
	}
	secret.set(&u, time.Now())
	u.Created = u.Changed
	err = d.Store.AddUser(ctx, u)
	if errors.Is(err, store.ErrExists) {
		return c, fault(Conflict, "login %s exists already", u.Login)
	}
	if err != nil {
		return c, err
	}
	c = secret.shown(u.Login)
	c.warn(d.keepKeys(ctx, u.Login, secret))
	c.warn(d.note(ctx, event(by, u.Login, "account added")))
	return c, nil
}

// update changes an account in one transaction, if it is still one that the operation is for.
func (a Accounts) update(ctx context.Context, of Among, login string, change func(*auth.User) error) error {
	login, err := CheckLogin(login)
	if err != nil {
		return err
	}
	err = a.Store.UpdateUser(ctx, login, func(u *auth.User) error {
		if err := of.check(*u); err != nil {
			return err
		}
		return change(u)
	})
	if errors.Is(err, auth.ErrUnknownLogin) {
		return a.unknown(ctx, of, login)
	}
	return err
}

// applied changes an account that is still as it was, and returns what is new in words.
func applied(c *config.Config, u *auth.User, e AccountEdit) (changes []string, err error) {
	if len(u.Senders) == 0 && len(e.Senders.Add) > 0 && sendsAsItself(c, *u) {
		e.Senders = besideOwn(u.Login, e.Senders)
	}
	if changes, err = e.apply(u, time.Now()); len(changes) > 0 && checkSends(c, *u) != nil {
		changes = append(changes, "it may send as nobody: all its mail is refused")
	}
	return changes, err
}

// Edit changes an account and returns it, with what is new in words: nothing where it was so already.
func (a Accounts) Edit(ctx context.Context, by Actor, of Among, login string, e AccountEdit) (
	after auth.User, changes []string, err error) {
	if err := e.Check(); err != nil {
		return after, nil, err
	}
	err = a.act(ctx, by, EditAccount, login, func(ctx context.Context, detail *string) error {
		err := a.update(ctx, of, login, func(u *auth.User) (err error) {
			changes, err = applied(a.Config(), u, e)
			after, *detail = *u, strings.Join(changes, "; ")
			return err
		})
		if err == nil && *detail != "" {
			err = a.note(ctx, event(by, after.Login, "account changed ("+*detail+")"))
		}
		return err
	})
	return after, changes, err
}

// Remove removes an account. Its waiting mail stays in the queue.
func (a Accounts) Remove(ctx context.Context, by Actor, of Among, login string) error {
	login, err := CheckLogin(login)
	if err != nil {
		return err
	}
	return a.act(ctx, by, RemoveAccount, login, func(ctx context.Context, _ *string) error {
		err := a.Store.DeleteUser(ctx, login, of.check)
		if errors.Is(err, auth.ErrUnknownLogin) {
			return a.unknown(ctx, of, login)
		}
		if err != nil {
			return err
		}
		return a.note(ctx, event(by, login, "account removed"))
	})
}

// Password gives an account a new password: one that was chosen, or with "" one that is generated.
func (a Accounts) Password(ctx context.Context, by Actor, of Among, login, chosen string) (c Credential, err error) {
	err = a.act(ctx, by, NewPassword, login, func(ctx context.Context, _ *string) error {
		u, err := a.Get(ctx, by, of, login)
		if err != nil {
			return err
		}
		secret, err := a.credential(ctx, u, chosen)
		if err != nil {
			return err
		}
		err = a.update(ctx, of, u.Login, func(u *auth.User) error { secret.set(u, time.Now()); return nil })
		if err != nil {
			return err
		}
		c = secret.shown(u.Login)
		c.warn(a.keepKeys(ctx, u.Login, secret))
		c.warn(a.note(ctx, event(by, u.Login, "password changed")))
		return nil
	})
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

// Lock refuses a login until it is unlocked. reason is for those who list the accounts.
func (a Accounts) Lock(ctx context.Context, by Actor, login, reason string) error {
	reason = mail.Printable(reason)
	return a.act(ctx, by, LockAccount, login, func(ctx context.Context, detail *string) error {
		var locked string
		*detail = reason
		err := a.update(ctx, Everybody, login, func(u *auth.User) error {
			u.Locked, u.LockReason, u.Changed = true, reason, time.Now()
			locked = u.Login
			return nil
		})
		if kind, known := KindOf(err); known && kind == NotFound && a.mayBeElsewhere(ctx, login) {
			locked, err = a.lockElsewhere(ctx, by, login, reason)
		}
		if err != nil {
			return err
		}
		return a.note(ctx, event(by, locked, "account locked ("+reason+")"))
	})
}

// checkedSenders returns patterns of senders, each once.
func checkedSenders(patterns []string) (checked []string, err error) {
	for _, s := range patterns {
		if err := policy.CheckSenderPattern(s); err != nil {
			return nil, fmt.Errorf("sender %w", err) // it quotes the sender
		}
		checked = addOnce(checked, s)
	}
	return checked, nil
}

// ParseNetworks reads networks and addresses, each once.
func ParseNetworks(texts []string) (checked []netip.Prefix, err error) {
	for _, n := range texts {
		network, err := config.ParseNetwork(n)
		if err != nil {
			return nil, fmt.Errorf("network %w", err)
		}
		checked = addOnce(checked, network.Prefix)
	}
	return checked, nil
}

func checkedGroups(names []string) (checked []string, err error) {
	for _, g := range names {
		if g == "" || g != mail.Printable(g) || strings.ContainsAny(g, " \t,;") {
			return nil, fmt.Errorf("group %q: a name without blanks, commas and semicolons is needed",
				mail.Printable(g))
		}
		checked = addOnce(checked, g)
	}
	return checked, nil
}

// maxNote bounds a note, in characters.
const maxNote = 2000

func checkNote(note string) error {
	if utf8.RuneCountInString(note) > maxNote {
		return fmt.Errorf("the note has more than %d characters", maxNote)
	}
	return nil
}

func addOnce[T comparable](list []T, more ...T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}
