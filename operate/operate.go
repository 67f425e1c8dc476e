// Package operate is what a person may do, in one place: the command line, the API and the console read it and show
// what it returns. Each operation says who may (rights.go) and leaves a record of who did it.
//
// Failure semantics: an operation is done whole or not at all, and its error says what is wrong in words for people; an
// *Error also says of what kind it is. What was done stays done where its record could not be written; the error says
// so. What the daemon has to learn of it learns by the store, whichever process does it.
package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"

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
	// Version of this program; "": not known.
	Version string
}

// Operations are all of them, by what they are about. All methods are safe for concurrent use.
type Operations struct {
	Queue    Queue
	Accounts Accounts
	Trace    Trace
	Keys     Keys
	Alerts   Alerts
	Status   Status
	Domains  Domains
	Audit    Audit
	Doctor   Doctor
	Settings Settings

	Certificates Certificates
}

// New returns the operations on a store.
func New(o Options) *Operations {
	d := &desk{o, expirable.NewLRU[string, struct{}](maxRefused, nil, time.Hour)}
	return &Operations{Queue{d}, Accounts{d}, Trace{d}, Keys{d}, Alerts{d}, Status{d},
		Domains{d, &reports{of: make(map[string]dnscheck.Report)}}, Audit{d},
		Doctor{d, &examination{}}, Settings{d}, Certificates{d}}
}

// desk is what all operations share.
type desk struct {
	Options
	refused *expirable.LRU[string, struct{}] // who was refused what lately: once an hour is enough for the audit
}

// maxRefused bounds how many refusals are remembered.
const maxRefused = 1024

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
	Kind Kind
	Msg  string
}

func (e *Error) Error() string { return e.Msg }

func fault(kind Kind, format string, args ...any) error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of an Error. False: it is no fault of who asked.
func KindOf(err error) (Kind, bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return 0, false
	}
	return e.Kind, true
}

// note traces what somebody did.
func (d *desk) note(ctx context.Context, events ...trace.Event) error {
	if len(events) == 0 {
		return nil
	}
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
	}
	return "from the command line"
}
