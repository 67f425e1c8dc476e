package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"postern/relay/backup"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/store"
)

// Operations on backups.
var (
	MakeBackup = Operation{Name: "backup", Role: Admin, Scope: ScopeAdmin, Audit: true, Staged: true, Strong: true}
	// RestoreBackup is what is changed in a store that comes from a backup.
	RestoreBackup = Operation{Name: "restore", Role: Admin, Scope: ScopeAdmin, Audit: true, Staged: true, Strong: true}
)

// Backups are copies of all that a relay must not lose.
type Backups struct{ *desk }

// Make makes a backup. Config, store and version are those of the operations.
func (b Backups) Make(ctx context.Context, by Actor, o backup.Options) (made backup.Made, err error) {
	o.Config, o.Store, o.Version = b.Config(), b.Store, b.Options.Version
	subject := o.File
	if o.File == backup.Standard {
		subject = "to standard output"
	}
	err = b.act(ctx, by, MakeBackup, subject, func(ctx context.Context, detail *string) error {
		made, err = backup.Make(ctx, o)
		*detail = fmt.Sprintf("%d messages", made.Messages)
		return err
	})
	return made, err
}

// Fate is what becomes of mail that waits in the queue of a backup.
type Fate string

// The fates.
const (
	KeepQueue Fate = "keep" // it is sent
	HoldQueue Fate = "hold" // it is held, until somebody has looked
	DropQueue Fate = "drop" // it is not sent; the trace names each recipient
)

// ErrFate: a backup has queued mail, and nobody said what becomes of it.
var ErrFate = errors.New("it has queued mail")

// needed is ErrFate where nobody said what becomes of so many messages.
func (f Fate) needed(messages int64) error {
	if f == "" && messages > 0 {
		return fmt.Errorf("%w: %d messages", ErrFate, messages)
	}
	return nil
}

// Restored is what a restore has done.
type Restored struct {
	backup.Manifest
	Dir     string `json:"data_dir"`
	Queue   Fate   `json:"queue,omitempty"` // what was said; "": nothing, as nothing was queued
	Held    int64  `json:"held"`            // that were not before
	Dropped int64  `json:"dropped"`
}

// Restore brings a backup back into the empty data directory of a configuration.
func Restore(ctx context.Context, by Actor, c *config.Config, from io.Reader, fate Fate, o backup.RestoreOptions) (
	done Restored, err error) {
	if c.Store.URL.Server() {
		return done, fmt.Errorf("%w by relay.toml, and a backup has one in a file: restore it with a relay.toml "+
			"without [store] url, then: postern store migrate", store.ErrAtServer)
	}
	o.Dir = c.DataDir
	o.Accept = func(m *backup.Manifest) error { return fate.needed(m.Messages) } // before much is copied
	o.Settle = func(ctx context.Context, s *store.Store, m *backup.Manifest) error {
		ops := New(Options{Config: func() *config.Config { return c }, Store: s})
		done, err = ops.Backups.Settle(ctx, by, fate, m)
		return err
	}
	m, err := backup.Restore(ctx, from, o)
	done.Manifest, done.Dir = m, c.DataDir
	return done, err
}

// Settle makes a store that comes from a backup ready for its new life: nobody is logged in any more, and of what waits
// becomes what was said.
func (b Backups) Settle(ctx context.Context, by Actor, fate Fate, m *backup.Manifest) (done Restored, err error) {
	st, err := b.Store.Stats(ctx)
	if err != nil {
		return done, err
	}
	if err := fate.needed(st.Messages); err != nil {
		return done, err
	}
	done.Queue = fate // whatever is counted: what was said holds for all that there is
	made := m.Made.UTC().Format(time.DateTime) + " UTC"
	err = b.act(ctx, by, RestoreBackup, "of "+made, func(ctx context.Context, detail *string) error {
		err := b.Store.EndSessions(ctx)
		switch {
		case err != nil:
		case done.Queue == HoldQueue:
			done.Held, err = b.Store.Hold(ctx, queue.Filter{}, "restored from the backup of "+made)
		case done.Queue == DropQueue:
			done.Dropped, err = b.Store.DropAll(ctx, "dropped: restored from the backup of "+made+" with --queue drop")
		}
		*detail = fmt.Sprintf("%d messages, of which %d were held and %d dropped", st.Messages, done.Held, done.Dropped)
		return err
	})
	return done, err
}
