package store

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/relay/store/internal/db"
)

// What changes when a lockout begins or is lifted, or a login is used from a new place: of the logins by SMTP, or of
// the console.
const (
	TopicLockouts        = "lockouts"
	TopicConsoleLockouts = "console-lockouts"
)

// schemaLockout keeps what the lockout must know after a restart: from where logins were used, hashed, and who is
// locked out, which is also how the command line sees it. A lock without a login is of an address, one without an
// address of a login.
const schemaLockout = `
CREATE TABLE lockout_place (digest BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX lockout_place_at ON lockout_place (at);
CREATE TABLE lockout (
	login TEXT NOT NULL, client TEXT NOT NULL, until INTEGER NOT NULL, failures INTEGER NOT NULL,
	PRIMARY KEY (login, client)
) STRICT, WITHOUT ROWID;
CREATE INDEX lockout_until ON lockout (until);
`

// schemaConsoleLockout keeps the same of the console.
const schemaConsoleLockout = `
CREATE TABLE console_lockout_place (digest BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX console_lockout_place_at ON console_lockout_place (at);
CREATE TABLE console_lockout (
	login TEXT NOT NULL, client TEXT NOT NULL, until INTEGER NOT NULL, failures INTEGER NOT NULL,
	PRIMARY KEY (login, client)
) STRICT, WITHOUT ROWID;
CREATE INDEX console_lockout_until ON console_lockout (until);
`

// What is kept at most; the oldest go first.
const (
	placesFor   = 7 * 24 * time.Hour
	maxPlaces   = 32768
	maxLockouts = 16384
)

// Lockout is where a lockout is kept: that of the logins by SMTP, or that of the console.
type Lockout struct {
	s           *Store
	place, lock string // the tables
	topic       string
}

// ConsoleLockout is that of the console and of the API's tokens.
func (s *Store) ConsoleLockout() Lockout {
	return Lockout{s, "console_lockout_place", "console_lockout", TopicConsoleLockouts}
}

// LoginLockout is that of the logins by SMTP.
func (s *Store) LoginLockout() Lockout { return Lockout{s, "lockout_place", "lockout", TopicLockouts} }

// Restore tells an Authenticator what the process before it knew. key is what places are hashed with.
func (l Lockout) Restore(ctx context.Context, a *auth.Authenticator, key []byte, now time.Time) error {
	places, err := l.places(ctx, now.Add(-placesFor))
	if err != nil {
		return err
	}
	locks, err := l.locks(ctx, now)
	if err != nil {
		return err
	}
	a.Restore(key, places, locks, now)
	return nil
}

// Keep writes down what an Authenticator has learnt since the last time. What cannot be written comes again.
func (l Lockout) Keep(ctx context.Context, a *auth.Authenticator, now time.Time) error {
	u := a.Unsaved()
	if u.Empty() {
		return nil
	}
	if err := l.Save(ctx, now, u); err != nil {
		a.Again(u)
		return err
	}
	a.Saved(u)
	return nil
}

// Save writes down what changed, and tells the other processes. It waits for a commit that comes anyway, unless
// somebody is locked out.
func (l Lockout) Save(ctx context.Context, now time.Time, u auth.Unsaved) error {
	run := func(t *tx) error { return l.save(t, now, u) }
	if len(u.Locks) > 0 {
		return wrap(l.s.write(ctx, run), "save the lockout")
	}
	cost := int64(len(u.Places))
	return wrap(l.s.writer.do(ctx, &op{lazy: true, cost: cost, run: run}), "save from where logins are used")
}

func (l Lockout) save(t *tx, now time.Time, u auth.Unsaved) error {
	for _, p := range u.Places {
		if err := t.Run("INSERT INTO "+l.place+" (digest, at) VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET "+
			"at = max("+l.place+".at, excluded.at)", p.Digest[:], t.clock.nano(p.At)); err != nil {
			return err
		}
	}
	for _, lock := range u.Locks {
		if err := l.put(t, lock); err != nil {
			return err
		}
	}
	if len(u.Places) > 0 {
		err := runEach(t, map[string]int64{
			"DELETE FROM " + l.place + " WHERE at < ?": t.clock.nano(now.Add(-placesFor)),
			"DELETE FROM " + l.place + " WHERE digest IN (SELECT digest FROM " + l.place +
				" ORDER BY at DESC LIMIT -1 OFFSET ?)": maxPlaces,
		})
		if err != nil {
			return err
		}
	}
	err := runEach(t, map[string]int64{
		"DELETE FROM " + l.lock + " WHERE until <= ?": t.clock.nano(now),
		"DELETE FROM " + l.lock + " WHERE (login, client) IN (SELECT login, client FROM " + l.lock +
			" ORDER BY until DESC LIMIT -1 OFFSET ?)": maxLockouts,
	})
	if err != nil {
		return err
	}
	return bump(t.Conn, l.topic)
}

func runEach(t *tx, queries map[string]int64) error {
	for query, arg := range queries {
		if err := t.Run(query, arg); err != nil {
			return err
		}
	}
	return nil
}

func (l Lockout) put(t *tx, lock auth.Lock) error {
	if lock.Until.IsZero() {
		return l.drop(t, lock)
	}
	// Where two processes lock out the same, the later end counts.
	return t.Run("INSERT INTO "+l.lock+" (login, client, until, failures) VALUES (?, ?, ?, ?) ON CONFLICT "+
		"(login, client) DO UPDATE SET until = max("+l.lock+".until, excluded.until), failures = excluded.failures",
		lock.Login, prefixText(lock.Client), t.clock.nano(lock.Until), lock.Failures)
}

func (l Lockout) drop(t *tx, lock auth.Lock) error {
	return t.Run("DELETE FROM "+l.lock+" WHERE login = ? AND client = ?", lock.Login, prefixText(lock.Client))
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// places returns from where logins were used since.
func (l Lockout) places(ctx context.Context, since time.Time) ([]auth.Place, error) {
	places, err := readAll(ctx, l.s.readers, func(row db.Row) (auth.Place, error) {
		p := auth.Place{At: l.s.clock.time(row.Int(1))}
		copy(p.Digest[:], row.Blob(0))
		return p, nil
	}, "SELECT digest, at FROM "+l.place+" WHERE at >= ?", l.s.clock.nano(since))
	return places, wrap(err, "load from where logins are used")
}

// locks returns who is locked out: addresses first, then logins.
func (l Lockout) locks(ctx context.Context, now time.Time) ([]auth.Lock, error) {
	locks, err := readAll(ctx, l.s.readers, l.scan, l.selectLocks(), l.s.clock.nano(now))
	return locks, wrap(err, "list who is locked out")
}

func (l Lockout) selectLocks() string {
	return "SELECT login, client, until, failures FROM " + l.lock + " WHERE until > ? ORDER BY login, client"
}

func (l Lockout) scan(row db.Row) (auth.Lock, error) {
	lock := auth.Lock{Login: row.Text(0), Until: l.s.clock.time(row.Int(2)), Failures: int(row.Int(3))}
	lock.Client, _ = netip.ParsePrefix(row.Text(1)) // "" is no address
	return lock, nil
}

// Lockouts returns who may not log in by SMTP now: addresses first, then logins.
func (s *Store) Lockouts(ctx context.Context, now time.Time) ([]auth.Lock, error) {
	return s.LoginLockout().locks(ctx, now)
}

// LiftLockouts ends the lockouts that a person chooses and returns them. The daemon hears of it and lets in whom they
// kept out. chosen may be called more than once for each.
func (s *Store) LiftLockouts(ctx context.Context, now time.Time, chosen func(auth.Lock) bool) (lifted []auth.Lock,
	err error) {
	return s.LoginLockout().lift(ctx, now, chosen)
}

// LiftConsoleLockouts does the same with those of the console and of the API.
func (s *Store) LiftConsoleLockouts(ctx context.Context, now time.Time, chosen func(auth.Lock) bool) (
	lifted []auth.Lock, err error) {
	return s.ConsoleLockout().lift(ctx, now, chosen)
}

func (l Lockout) lift(ctx context.Context, now time.Time, chosen func(auth.Lock) bool) (
	lifted []auth.Lock, err error) {
	err = l.s.write(ctx, func(t *tx) error {
		locks, err := list(t.Conn, l.scan, l.selectLocks(), t.clock.nano(now))
		if err != nil {
			return err
		}
		lifted = slices.DeleteFunc(locks, func(l auth.Lock) bool { return !chosen(l) })
		if len(lifted) == 0 {
			return nil
		}
		for _, lock := range lifted {
			if err := l.drop(t, lock); err != nil {
				return err
			}
		}
		return bump(t.Conn, l.topic)
	})
	return lifted, wrap(err, "lift lockouts")
}

// learnSince is how far back Adopt looks for places: those of a process that could not save them for a while come late.
const learnSince = time.Hour

// Adopt takes over what other processes have saved: it ends the lockouts in an Authenticator that were lifted, and
// returns them, and begins those that are new. It must not run at the same time as Keep.
func (l Lockout) Adopt(ctx context.Context, a *auth.Authenticator, now time.Time) ([]auth.Lock, error) {
	places, err := l.places(ctx, now.Add(-learnSince))
	if err != nil {
		return nil, err
	}
	locks, err := l.locks(ctx, now)
	if err != nil {
		return nil, err
	}
	lifted := a.KeepLocks(locks)
	a.Learn(places, locks)
	return lifted, nil
}
