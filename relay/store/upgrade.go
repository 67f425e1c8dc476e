package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"postern/internal/howto"
	"postern/internal/release"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/sqlite"
)

// schemaProgram notes in the row of each version of the schema which Postern has used it last: what an older one says
// that finds it.
const schemaProgram = `ALTER TABLE migration ADD COLUMN program TEXT NOT NULL DEFAULT '';`

// programSince is the first version of the schema that notes programs.
var programSince = int64(1 + slices.Index(migrations, migration{both: schemaProgram}))

// ErrOlder: the store is of an older version, and this process may not bring it up to date.
var ErrOlder = errors.New("the store is of an older Postern")

// origin is what a store says of who has used it.
type origin struct {
	schema  int
	program string // such as v0.9.0; "": before 0.9.0
}

// readOrigin reads it from a store that has a schema.
func readOrigin(conn db.Conn) (origin, error) {
	schema, _, err := conn.Int("SELECT max(version) FROM migration")
	found := origin{schema: int(schema)}
	if err != nil || schema < programSince {
		return found, err
	}
	programs, err := list(conn, text, "SELECT program FROM migration WHERE version = ?", schema)
	if err == nil && len(programs) == 1 {
		found.program = programs[0]
	}
	return found, err
}

func (o origin) String() string {
	if o.program == "" {
		return fmt.Sprint("schema ", o.schema)
	}
	return fmt.Sprintf("%s, schema %d", o.program, o.schema)
}

// this is what this program writes.
func this() origin { return origin{len(migrations), release.Version()} }

// newer refuses a store of a newer version.
func (o origin) newer() error {
	program := cmp.Or(o.program, "a newer postern")
	return fmt.Errorf("it was written by %s (schema %d), and this is %s, which knows schema %d at most: install %s "+
		"again, or restore a backup that %[3]s has made", program, o.schema, release.Version(), len(migrations),
		cmp.Or(o.program, "that version"))
}

// stopped is why the schema was not brought from a version to the next, or made, from 0. nil: it was.
func stopped(from int, err error) error {
	switch {
	case err == nil:
		return nil
	case from == 0:
		err = fmt.Errorf("make the store: %w; nothing of it is left", err)
	default:
		err = fmt.Errorf("bring the schema from version %d to %d: %w; nothing of this step is left", from, from+1, err)
	}
	if db.KindOf(err) == db.Full {
		err = fmt.Errorf("%w: make room and start again", err)
	}
	return err
}

// noteVersion notes in the transaction of a step that it is made.
func noteVersion(conn db.Conn, version int) error {
	err := conn.Run("INSERT INTO migration (version, applied) VALUES (?, ?)", version, time.Now().UnixNano())
	if err == nil && int64(version) >= programSince {
		err = noteProgram(conn, version)
	}
	return err
}

func noteProgram(conn db.Conn, version int) error {
	return conn.Run("UPDATE migration SET program = ? WHERE version = ?", release.Version(), version)
}

// openMain opens the connection that writes, and brings the schema up to date.
func (f *file) openMain() (*sqlite.Conn, error) {
	unlock, err := lockDir(filepath.Dir(f.path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	conn, err := openConn(f.path)
	if err != nil {
		return nil, err
	}
	found, err := prepareSchema(conn, f.hold)
	if err != nil {
		conn.Close()
		return nil, err
	}
	f.before = found.program
	return conn, nil
}

// hold refuses to change the schema to all but the daemon, which has the lock of the directory. An older one that runs
// would not know what is new in it, and who only looks must not take the way back from anybody.
func (f *file) hold(found origin) error {
	switch {
	case f.daemon && !f.look:
		f.log.Warn("the store is brought up to date: the older version cannot use it any more", "store", f.path,
			"from", found.String(), "to", this().String())
		return nil
	case Serving(Options{Dir: filepath.Dir(f.path)}):
		return fmt.Errorf("%w (%s), which still runs; this is %s: restart Postern (%s)", ErrOlder, found, this(),
			howto.Restart)
	}
	return found.left()
}

// left refuses a store that is to be left as it is.
func (o origin) left() error {
	return fmt.Errorf("%w (%s): the next start of this one (%s) brings it up to date, and then the older one cannot "+
		"use it any more; to be able to go back, make a backup before", ErrOlder, o, this())
}

// usedBy is the program that used the store before this one: at a server, the node.
func (s *Store) usedBy() string {
	if f, ok := s.engine.(*file); ok {
		return f.before
	}
	return s.member.before
}

// noteUse notes which program uses the store now, and tells of an upgrade. was is the one before, "" if not known. On a
// full disk it is not noted: mail must be able to leave.
func (s *Store) noteUse(ctx context.Context, was string) {
	now := release.Version()
	switch {
	case was == "" || was == now:
	case release.Older(now, was):
		s.log.Warn("this version is older than the one before", "from", was, "to", now)
	default:
		s.log.Info("upgraded", "from", was, "to", now)
	}
	err := s.write(ctx, func(t *tx) error {
		found, err := readOrigin(t.Conn)
		// Of several nodes the newest is the one that others must know of.
		if err != nil || found.program == now || s.Shared() && release.Older(now, found.program) {
			return err
		}
		return noteProgram(t.Conn, found.schema)
	})
	if err != nil {
		s.log.Warn("the store does not say which version uses it", "err", err)
	}
}
