// Package operate is what a person may do, in one place: the command line, the API and the console read it and show
// what it returns. Each operation says who may (rights.go) and leaves a record of who did it.
//
// Failure semantics: an operation is done whole or not at all, and its error says what is wrong in words for people; an
// *Error also says of what kind it is. Nothing is changed whose record cannot be written: both are one transaction, or
// the record says before that it was begun (audit.go). What the daemon has to learn of it learns by the store,
// whichever process does it.
package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/auth"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/dnscheck"
	"postern/relay/keyring"
	"postern/relay/status"
	"postern/relay/store"
	"postern/relay/trace"
)

// Options are what operations work on.
type Options struct {
	Config func() *config.Config // in force
	Store  *store.Store
	Status func(context.Context) (*status.Report, error) // of the running daemon, or what can be said without one
	DNS    keyring.Lookup                                // for DKIM keys; nil: nobody can look
	// Counted is what this process has counted of a login's limits; nil: the daemon is asked for it by the store.
	Counted func(now time.Time, login string, limits []policy.Limit) []policy.State
	// Lookup asks the sources of passwords who a login is, as auth.Authenticator does; nil: the store alone is asked.
	Lookup func(ctx context.Context, login string) (auth.Identity, error)
	// Version of this program; "": not known.
	Version string
}

// Operations are all of them, by what they are about. All methods are safe for concurrent use.
type Operations struct {
	Queue              Queue
	Accounts           Accounts
	Devices            Devices
	ClientCertificates ClientCertificates
	Trace              Trace
	Keys               Keys
	Alerts             Alerts
	Status             Status
	Domains            Domains
	Audit              Audit
	Doctor             Doctor
	Settings           Settings
	Clients            Clients
	Certificates       Certificates
	AppPasswords       AppPasswords
	Nodes              Nodes
	Backups            Backups
}

// New returns the operations on a store.
func New(o Options) *Operations {
	d := &desk{o, NewLedger(o.Store, time.Now)}
	seen := &reports{of: make(map[string]dnscheck.Report)}
	return &Operations{Queue{d}, Accounts{d}, Devices{d}, ClientCertificates{Accounts{d}}, Trace{d}, Keys{d}, Alerts{d},
		Status{d},
		Domains{d, seen}, Audit{d},
		Doctor{d, &examination{}, seen}, Settings{d}, Clients{d}, Certificates{d}, AppPasswords{d}, Nodes{d},
		Backups{d}}
}

// desk is what all operations share.
type desk struct {
	Options
	ledger *Ledger
}

// act is Ledger.Do.
func (d *desk) act(ctx context.Context, by Actor, op Operation, subject string,
	do func(ctx context.Context, detail *string) error) error {
	return d.ledger.Do(ctx, by, op, subject, do)
}

// Kind tells errors apart.
type Kind uint8

// The kinds of errors.
const (
	Invalid  Kind = iota // what was asked for cannot be
	NotFound             // there is no such thing
	Conflict             // it does not fit what there is
)

// Error is a refusal that a person can do something about.
type Error struct {
	Kind    Kind
	Msg     string
	Suggest string // a sender that would mend it; "" where that is not what is missing
}

func (e *Error) Error() string { return e.Msg }

func fault(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of an Error, or of a GrownError. False: it is no fault of who asked.
func KindOf(err error) (Kind, bool) {
	if _, grown := errors.AsType[*GrownError](err); grown {
		return Conflict, true
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return 0, false
	}
	return e.Kind, true
}

// noteTime bounds how long a trace event of who has gone away meanwhile is tried to be written.
const noteTime = 10 * time.Second

// note traces what somebody did. It is done, so it is traced also where they have gone away.
func (d *desk) note(ctx context.Context, events ...trace.Event) error {
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	if err := d.Store.AppendEventsNow(ctx, events); err != nil {
		return fmt.Errorf("it is done, but the trace could not be written: %w", err)
	}
	return nil
}

// event is what somebody did, as the trace has it.
func event(by Actor, login, what string) trace.Event {
	return trace.Event{Time: time.Now(), Kind: trace.Operator, Login: login, Detail: what + " " + by.words(),
		Client: by.Client}
}

// words say by whom something was done.
func (a Actor) words() string {
	switch a.Channel {
	case Console:
		return "by " + a.Name + " in the console"
	case API:
		return "by the API token " + a.Name
	case SelfService:
		return "by its owner on the page of self-service"
	}
	return "from the command line"
}
