package access

import (
	"context"
	"fmt"
	"strings"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

// ErrLastAdmin: nobody would be left who may everything. The command line may do it all the same.
var ErrLastAdmin error = &operate.Error{Kind: operate.Conflict,
	Msg: "this is the last administrator: make another one first, or do it on the command line"}

// invalid and conflict are faults of who asked.
func invalid(format string, args ...any) error {
	return &operate.Error{Kind: operate.Invalid, Msg: fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &operate.Error{Kind: operate.Conflict, Msg: fmt.Sprintf(format, args...)}
}

// Users are who may into the console.
type Users struct{ *core }

// List returns who may into the console, without passwords and factors.
func (a Users) List(ctx context.Context, who operate.Actor) ([]store.ConsoleUser, error) {
	if err := who.May(operate.ListConsoleUsers); err != nil {
		return nil, err
	}
	users, err := a.store.ConsoleUsers(ctx)
	for i := range users {
		if users[i].TOTP != "" {
			users[i].TOTP = "set"
		}
		if users[i].Hash != "" {
			users[i].Hash = "set"
		}
	}
	return users, err
}

// Invite makes a user and the link by which they choose password and second factor. Whoever has not accepted yet may be
// invited again, with another role too.
func (a Users) Invite(ctx context.Context, who operate.Actor, name string, role operate.Role) (link Link, err error) {
	name, err = auth.CheckLogin(name)
	if err != nil {
		return Link{}, invalid("%s", strings.Replace(err.Error(), "the login", "the name", 1))
	}
	if role == operate.Nobody {
		return Link{}, invalid("a role is needed: viewer, helpdesk, operator or admin")
	}
	err = a.ledger.Do(ctx, who, operate.InviteUser, name, func(ctx context.Context, detail *string) error {
		*detail = "role " + role.String()
		if err := a.invited(ctx, name, role); err != nil {
			return err
		}
		link, err = a.newLink(ctx, name, role)
		return err
	})
	if err != nil {
		return Link{}, err
	}
	return link, nil
}

// invited makes a user who is to come.
func (a Users) invited(ctx context.Context, name string, role operate.Role) error {
	return a.store.ChangeConsoleUser(ctx, name, func(u *store.ConsoleUser, exists bool, _ []store.ConsoleUser) (bool,
		error) {
		if exists && u.Hash != "" {
			return false, conflict("there is such a user already; if they cannot log in any more: postern console "+
				"reset %s", name)
		}
		if !exists {
			u.Created = a.now()
		}
		u.Role, u.Generation = role.String(), u.Generation+1
		return true, nil
	})
}

// Reset takes password, factors and sessions from a user and makes a new link. It is the way back for who has lost
// them, and so only for the owner of data_dir.
func (a Users) Reset(ctx context.Context, who operate.Actor, name string) (link Link, err error) {
	err = a.ledger.Do(ctx, who, operate.ResetUser, name, func(ctx context.Context, detail *string) error {
		if who.Channel != operate.CommandLine {
			return fmt.Errorf("%s: %w: only on the command line of the machine", operate.ResetUser.Name,
				operate.ErrForbidden)
		}
		role, err := a.unmade(ctx, who, name)
		if err != nil {
			return err
		}
		*detail = "role " + role.String()
		link, err = a.newLink(ctx, name, role)
		return err
	})
	if err != nil {
		return Link{}, err
	}
	return link, nil
}

// unmade takes password, factors and sessions from a user, whose role it returns.
func (a Users) unmade(ctx context.Context, who operate.Actor, name string) (role operate.Role, err error) {
	return role, a.change(ctx, who, name, func(u *store.ConsoleUser) error {
		if u.Provider != "" {
			return conflict("%s logs in by OpenID Connect: there is nothing to reset here", name)
		}
		if u.Disabled {
			return conflict("%s is switched off: run first: postern console enable %s", name, name)
		}
		u.Hash, u.TOTP, u.TOTPStep, u.WrongCodes, u.Passkeys = "", "", 0, 0, nil
		role = roleOf(*u)
		return nil
	})
}

// SetRole changes what a user may, which ends their sessions.
func (a Users) SetRole(ctx context.Context, who operate.Actor, name string, role operate.Role) error {
	return a.ledger.Do(ctx, who, operate.ChangeRole, name, func(ctx context.Context, detail *string) error {
		if role == operate.Nobody {
			return invalid("a role is needed: viewer, helpdesk, operator or admin")
		}
		return a.change(ctx, who, name, func(u *store.ConsoleUser) error {
			if u.Provider != "" {
				return conflict("the role of %s follows from the groups at the login provider: change them there", name)
			}
			*detail, u.Role = u.Role+" becomes "+role.String(), role.String()
			return nil
		})
	})
}

// Disable switches a user off, or on again. Unlike one that was removed, somebody who logs in by OpenID Connect stays
// out then.
func (a Users) Disable(ctx context.Context, who operate.Actor, name string, off bool) error {
	return a.ledger.Do(ctx, who, operate.DisableUser, name, func(ctx context.Context, detail *string) error {
		if *detail = "switched on"; off {
			*detail = "switched off"
		}
		return a.change(ctx, who, name, func(u *store.ConsoleUser) error {
			u.Disabled = off
			return nil
		})
	})
}

// Remove takes a user away, with sessions and links.
func (a Users) Remove(ctx context.Context, who operate.Actor, name string) error {
	name, _ = auth.NormalizeLogin(name)
	err := a.ledger.Do(ctx, who, operate.RemoveUser, name, func(ctx context.Context, _ *string) error {
		return a.store.ChangeConsoleUser(ctx, name, func(u *store.ConsoleUser, exists bool, all []store.ConsoleUser) (
			bool, error) {
			if !exists {
				return false, store.ErrNoConsoleUser
			}
			return false, keepsAdmin(who, *u, store.ConsoleUser{}, all)
		})
	})
	if err == nil {
		a.auth.Forget(name)
	}
	return err
}

// change changes a user that there is, and ends their sessions.
func (a Users) change(ctx context.Context, who operate.Actor, name string,
	change func(*store.ConsoleUser) error) error {
	name, _ = auth.NormalizeLogin(name)
	err := a.store.ChangeConsoleUser(ctx, name, func(u *store.ConsoleUser, exists bool, all []store.ConsoleUser) (bool,
		error) {
		if !exists {
			return false, store.ErrNoConsoleUser
		}
		before := *u
		if err := change(u); err != nil {
			return false, err
		}
		u.Generation++
		return true, keepsAdmin(who, before, *u, all)
	})
	if err == nil {
		a.auth.Forget(name)
	}
	return err
}

// keepsAdmin refuses a change by which the last administrator would be none any more. People who log in by OpenID
// Connect do not count: their provider may take the role away.
func keepsAdmin(who operate.Actor, before, after store.ConsoleUser, all []store.ConsoleUser) error {
	isAdmin := func(u store.ConsoleUser) bool { return roleOf(u) == operate.Admin && u.Active() && u.Provider == "" }
	if who.Channel == operate.CommandLine || !isAdmin(before) || isAdmin(after) {
		return nil
	}
	for _, u := range all {
		if u.Name != before.Name && isAdmin(u) {
			return nil
		}
	}
	return ErrLastAdmin
}
