package operate

import (
	"errors"
	"fmt"
	"slices"
)

// Role is what a person is. Each may what those before it may.
type Role uint8

// The roles.
const (
	Nobody   Role = iota
	Viewer        // sees everything but headers and content
	Helpdesk      // finds out why, and releases held mail
	Operator      // steers the queue, logins and devices
	Admin         // removes, sees content, manages keys, tokens and who may use the console
)

var roleNames = []string{"nobody", "viewer", "helpdesk", "operator", "admin"}

// String returns the role's name.
func (r Role) String() string { return roleNames[min(int(r), len(roleNames)-1)] }

// ParseRole reads the name of a role that somebody may have.
func ParseRole(name string) (Role, error) {
	if i := slices.Index(roleNames, name); i > 0 {
		return Role(i), nil
	}
	return Nobody, fmt.Errorf("%q is no role; there are viewer, helpdesk, operator and admin", name)
}

// Scope is what an API token is for.
type Scope string

// The scopes.
const (
	ScopeRead     Scope = "read"     // everything that a viewer sees
	ScopeQueue    Scope = "queue"    // the queue, and read
	ScopeAccounts Scope = "accounts" // logins and devices, and read
	ScopeAdmin    Scope = "admin"    // everything but what needs a second factor
)

// Scopes are all scopes.
var Scopes = []Scope{ScopeRead, ScopeQueue, ScopeAccounts, ScopeAdmin}

// Channel is the way by which somebody came.
type Channel string

// The channels.
const (
	CommandLine Channel = "command line" // the owner of data_dir, who may everything
	Console     Channel = "console"
	API         Channel = "API"
	SelfService Channel = "self-service" // a person who proved who they are, for what is their own
)

// Actor is who does something.
type Actor struct {
	Name    string // of the console's user, the token, or the user of the system; the login of SelfService
	Channel Channel
	Client  string  // address; "" on the command line
	Role    Role    // of a person; tokens have scopes
	Scopes  []Scope // of a token
	Strong  bool    // the second factor was given within minutes
}

// Operation is something that a person may do, by its name in the audit. All of them are in Operations.
type Operation struct {
	Name   string
	Role   Role  // at least
	Scope  Scope // that a token needs
	Audit  bool  // who did it is kept
	Staged bool  // it is more than one transaction of the store: begun is recorded before it
	Strong bool  // the second factor is asked for again; tokens may not
	Own    bool  // a person may do it with what is their own, without any role
}

// ErrForbidden is wrapped by the refusal of what an actor may not do, ErrStrong by that of what needs the second factor
// first.
var (
	ErrForbidden = errors.New("not allowed")
	ErrStrong    = errors.New("the second factor is needed")
)

// May returns nil if a may do op.
func (a Actor) May(op Operation) error {
	switch {
	case op.Name == "" || op.Role == Nobody || op.Scope == "":
		return fmt.Errorf("%w: it is no operation", ErrForbidden)
	case a.Channel == CommandLine:
		return nil
	case a.Channel == SelfService && op.Own:
		return nil
	case a.Channel == SelfService:
		return fmt.Errorf("%s: %w to %s, who may make and revoke their own app passwords", op.Name, ErrForbidden,
			a.Name)
	case a.Channel == API && op.Strong:
		return fmt.Errorf("%s: %w to tokens: use the console or the command line", op.Name, ErrForbidden)
	case a.Channel == API && !a.hasScope(op.Scope):
		return fmt.Errorf("%s: %w: the token lacks the scope %s", op.Name, ErrForbidden, op.Scope)
	case a.Channel == API:
		return nil
	case a.Role < op.Role:
		return fmt.Errorf("%s: %w: it needs the role %s, and %s is %s", op.Name, ErrForbidden, op.Role, a.Name, a.Role)
	case op.Strong && !a.Strong:
		return fmt.Errorf("%s: %w", op.Name, ErrStrong)
	}
	return nil
}

func (a Actor) hasScope(need Scope) bool {
	return slices.ContainsFunc(a.Scopes, func(has Scope) bool {
		return has == need || has == ScopeAdmin || need == ScopeRead && slices.Contains(Scopes, has)
	})
}
