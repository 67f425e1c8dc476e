package store

import (
	"errors"
	"fmt"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/sqlite"
)

// applicationID marks our files ("PSTN"), so that a database of something else is not taken for ours.
const applicationID = 0x5053544e

// pageSize: 16 KiB was the cheapest per message at 4 KiB and at 1 MB, and the only small one whose cost
// stayed the same with 200 000 messages in the queue; see docs/decisions/0002-store.md.
const pageSize = 16 << 10

// migration is one version of the schema.
type migration struct {
	both   string // of both engines, in the SQL of SQLite
	file   string // then of SQLite alone
	server string // or of PostgreSQL alone, in its own SQL
}

// migrations are the schema's versions, applied in order. What stands here never changes: a new
// version is a new entry.
var migrations = []migration{
	{both: schema1},
	{both: schema2},
	{both: schema3},
	{both: schema4},
	{both: schemaHistory},
	{both: schemaLockout},
	{both: schemaAlert},
	{both: schemaSearch},
	{both: schemaConsole},
	{both: schemaAnswers},
	{both: schemaStats},
	{both: schemaPrivacy},
	{both: schemaKeyStages},
	{both: schemaAuditTime},
	{both: schemaConfiguredKeys},
	{both: schemaConsoleLockout},
	{both: schemaAnswerCaller},
	{both: schemaDevices},
	{both: schemaProofs},
	{both: schemaACME},
	{both: schemaForgotten},
	{both: schemaAppPasswords},
	{both: schemaPersonSessions},
	{both: schemaLoginLock},
	{both: schemaCram},
	{file: schemaQueued, server: schemaServer},
	{both: schemaFlows},
	{both: schemaKeepsakes},
	{server: schemaSharedLimits},
	{server: schemaSharedAccounts},
	{server: schemaNodes},
	{both: schemaMove},
	{both: schemaProgram},
	{server: schemaEventParts},
}

// schema1: the indexes of the queue are partial so that a message which is handed to an attempt when it
// is added and finished by it, as most are, never enters more than one of them. A lease keeps a message
// out of due and due_login; one that ran out is found by lease.
const schema1 = `
CREATE TABLE message (
	id          TEXT PRIMARY KEY,
	login       TEXT NOT NULL,
	received    INTEGER NOT NULL, -- times are nanoseconds since 1970
	expires     INTEGER NOT NULL,
	size        INTEGER NOT NULL,
	chunk       INTEGER NOT NULL, -- the first of
	chunks      INTEGER NOT NULL,
	attempts    INTEGER NOT NULL,
	next        INTEGER NOT NULL,
	lease_owner TEXT NOT NULL,
	lease_until INTEGER NOT NULL, -- 0: no lease
	waiting_for TEXT NOT NULL,
	held        INTEGER NOT NULL,
	bounce      INTEGER NOT NULL,
	warned      INTEGER NOT NULL,
	hold_reason TEXT NOT NULL,
	last_reply  BLOB NOT NULL,
	recipients  BLOB NOT NULL,
	fixed       BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_due       ON message (next, login) WHERE held = 0 AND lease_until = 0;
CREATE INDEX message_due_login ON message (login, next) WHERE held = 0 AND lease_until = 0;
CREATE INDEX message_lease     ON message (lease_until) WHERE lease_until > 0;
CREATE INDEX message_waiting   ON message (waiting_for) WHERE waiting_for <> '';

CREATE TABLE chunk (n INTEGER PRIMARY KEY, id TEXT NOT NULL, data BLOB NOT NULL) STRICT;

CREATE TABLE counter (
	k        INTEGER PRIMARY KEY CHECK (k = 1),
	messages INTEGER NOT NULL,
	held     INTEGER NOT NULL,
	bytes    INTEGER NOT NULL,
	events   INTEGER NOT NULL
) STRICT;
INSERT INTO counter VALUES (1, 0, 0, 0, 0);

CREATE TABLE generation (topic TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE event (
	n       INTEGER PRIMARY KEY, -- its time in nanoseconds since 1970, or the next free one
	kind    TEXT NOT NULL,
	id      TEXT NOT NULL,
	session TEXT NOT NULL,
	login   TEXT NOT NULL,
	sender  TEXT NOT NULL, -- domain@local, so that a domain is a range
	rcpt    TEXT NOT NULL,
	data    BLOB NOT NULL
) STRICT;
CREATE INDEX event_id      ON event (id)      WHERE id <> '';
CREATE INDEX event_session ON event (session) WHERE session <> '';
CREATE INDEX event_login   ON event (login)   WHERE login <> '';
CREATE INDEX event_sender  ON event (sender)  WHERE sender <> '';
CREATE INDEX event_rcpt    ON event (rcpt)    WHERE rcpt <> '';

CREATE TABLE user (login TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE dkim_key (
	domain TEXT NOT NULL, selector TEXT NOT NULL, algorithm TEXT NOT NULL, pem TEXT NOT NULL, created INTEGER NOT NULL,
	PRIMARY KEY (domain, selector)
) STRICT, WITHOUT ROWID;
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE limit_state (
	login TEXT NOT NULL, lim TEXT NOT NULL, tokens REAL NOT NULL, at INTEGER NOT NULL, full_at INTEGER NOT NULL,
	PRIMARY KEY (login, lim)
) STRICT, WITHOUT ROWID;
CREATE INDEX limit_state_full ON limit_state (full_at);
CREATE TABLE known (
	login TEXT NOT NULL, addr TEXT NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (login, addr)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_login_used ON known (login, used);
CREATE INDEX known_used ON known (used);
CREATE TABLE known_count (login TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`

// openConn opens a connection with what every connection needs.
func openConn(path string) (*sqlite.Conn, error) {
	conn, err := sqlite.Open(path)
	if err != nil {
		return nil, err
	}
	conn.BusyTimeout(busyTimeout)
	// trusted_schema and cell_size_check guard against a file that somebody prepared or a disk damaged.
	err = conn.Exec("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA trusted_schema = OFF; PRAGMA " +
		"cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = ON; PRAGMA cache_size = -2048")
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// busyTimeout, in milliseconds, is how long we wait for a write of another process. The command line
// writes in small transactions, so that this is far more than it takes.
const busyTimeout = 10_000

var errForeign = errors.New("it is a database, but not of postern: move it away, or name another data_dir")

// prepareSchema brings the schema up to date, one transaction a version, or makes it in one, and returns what it was
// before. hold is asked before an existing store of an older version is changed.
func prepareSchema(conn db.Conn, hold func(found origin) error) (found origin, err error) {
	app, err := prepareOurs(conn)
	if err != nil {
		return found, err
	}
	found, err = originOf(conn, app)
	switch {
	case err != nil:
		return found, err
	case found.schema > len(migrations):
		return found, found.newer()
	case found.schema == 0:
		return found, migrate(conn, 0, len(migrations))
	case found.schema < len(migrations):
		if err := hold(found); err != nil {
			return found, err
		}
	}
	for version := found.schema; version < len(migrations); version++ {
		if err := migrate(conn, version, version+1); err != nil {
			return found, err
		}
	}
	return found, nil
}

// prepareOurs sets what a connection that writes needs, and refuses a file of others. It returns the mark of the file,
// 0 for a new one.
func prepareOurs(conn db.Conn) (app int64, err error) {
	// Log: at most 64 MiB of it stay on disk after a burst.
	if err := conn.Exec(fmt.Sprintf("PRAGMA page_size = %d; PRAGMA cache_size = -%d; PRAGMA journal_size_limit = %d",
		pageSize, 32<<10, 64<<20)); err != nil {
		return 0, err
	}
	if app, _, err = conn.Int("PRAGMA application_id"); err != nil {
		return 0, err
	}
	if app != applicationID {
		tables, _, err := conn.Int("SELECT count(*) FROM sqlite_schema")
		if err != nil {
			return 0, err
		}
		if app != 0 || tables != 0 {
			return 0, errForeign
		}
	}
	return app, conn.Exec("PRAGMA journal_mode = WAL")
}

func originOf(conn db.Conn, app int64) (origin, error) {
	if app == 0 {
		return origin{}, nil
	}
	found, err := readOrigin(conn)
	if err == nil && found.schema == 0 {
		err = errors.New("no version is noted")
	}
	if err != nil {
		return found, fmt.Errorf("its schema version cannot be read: %w", err)
	}
	return found, nil
}

// migrate brings the schema from one version to another. The mark of our files, the schema and its version are one
// transaction, so that a file is empty or complete.
func migrate(conn db.Conn, from, to int) error {
	err := conn.Exec(fmt.Sprintf(`BEGIN IMMEDIATE;
PRAGMA application_id = %d;
CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT`, applicationID))
	for version := from; err == nil && version < to; version++ {
		if err = conn.Exec(migrations[version].both + migrations[version].file); err == nil {
			err = noteVersion(conn, version+1)
		}
	}
	if err == nil {
		err = conn.Exec("COMMIT")
	}
	if err == nil {
		return nil
	}
	if conn.InTransaction() {
		err = errors.Join(err, conn.Exec("ROLLBACK"))
	}
	return stopped(from, err)
}

// recoverLog copies what a former life left in the log into the file, so that the log begins short. A
// file that was cut off shows before, when the engine compares its length with its header.
func recoverLog(conn *sqlite.Conn) error {
	_, _, err := conn.Checkpoint()
	if kind := db.KindOf(err); kind == db.Busy || kind == db.Full {
		// The command line is at it, or there is no room: later then.
		return nil
	}
	return err
}
