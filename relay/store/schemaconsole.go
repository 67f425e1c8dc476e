package store

// TopicConsole changes with every change of who may into the console or the API.
const TopicConsole = "console"

// schemaConsole keeps who may into the console and the API, and what was done there. Of links, sessions and tokens it
// has hashes (SHA-256) only.
const schemaConsole = `
CREATE TABLE console_user (name TEXT PRIMARY KEY, data TEXT NOT NULL, totp BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE console_invite (
	digest BLOB PRIMARY KEY, name TEXT NOT NULL, expires INTEGER NOT NULL,
	used   INTEGER NOT NULL, -- 0: not yet
	void   INTEGER NOT NULL  -- 1: a newer one took its place
) STRICT, WITHOUT ROWID;
CREATE INDEX console_invite_name ON console_invite (name);
CREATE TABLE console_session (
	digest     BLOB PRIMARY KEY,
	name       TEXT NOT NULL,
	generation INTEGER NOT NULL, -- of the user when it began
	created    INTEGER NOT NULL,
	used       INTEGER NOT NULL,
	strong     INTEGER NOT NULL, -- when the second factor was last given; 0: never
	client     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX console_session_name ON console_session (name, created);
CREATE INDEX console_session_used ON console_session (used);
CREATE TABLE api_token (
	digest BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, data TEXT NOT NULL, used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
	n         INTEGER PRIMARY KEY, -- its time in nanoseconds since 1970, or the next free one
	actor     TEXT NOT NULL,
	channel   TEXT NOT NULL,
	client    TEXT NOT NULL,
	operation TEXT NOT NULL,
	subject   TEXT NOT NULL,
	detail    TEXT NOT NULL,
	outcome   TEXT NOT NULL
) STRICT;
CREATE INDEX audit_actor     ON audit (actor, n);
CREATE INDEX audit_operation ON audit (operation, n);
`
