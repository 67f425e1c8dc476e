package store

// schemaQueued: message and what is constant of it are one row in SQLite, and two in PostgreSQL. Who reads all of it
// reads queued.
const schemaQueued = `CREATE VIEW queued AS SELECT * FROM message;`

// schemaServer is what PostgreSQL has another way, in SQL that only it knows. It replaces tables that are empty still.
//
// An update in PostgreSQL writes the whole row anew and leaves the old one to vacuum. So message has only what changes
// while a message waits, and is small; message_body is written when a message comes, and changed when an attempt has
// failed. Contents are in partitions by the hour of receipt. They are never deleted by row: a partition is dropped when
// no message has its contents there any more (parts.go).
//
// vacuum looks after a thousand dead rows instead of a fifth of the table, and does not sleep: what it cleans is read
// by each look for due messages.
//
// counter has a row for each node, so that nodes do not wait for one another; the counts are their sums, and one row
// alone may be negative. Row 0 is of commands.
const schemaServer = `
DROP TABLE message;
DROP TABLE chunk;
DROP TABLE counter;
CREATE TABLE message (
	id          bytea  PRIMARY KEY,
	login       bytea  NOT NULL,
	attempts    bigint NOT NULL,
	next        bigint NOT NULL,
	lease_owner bytea  NOT NULL,
	lease_until bigint NOT NULL,
	waiting_for bytea  NOT NULL,
	held        bigint NOT NULL,
	bounce      bigint NOT NULL,
	warned      bigint NOT NULL,
	hold_reason bytea  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX message_due       ON message (next, login) WHERE held = 0 AND lease_until = 0;
CREATE INDEX message_due_login ON message (login, next) WHERE held = 0 AND lease_until = 0;
CREATE INDEX message_lease     ON message (lease_until) WHERE lease_until > 0;
CREATE INDEX message_waiting   ON message (waiting_for, login) WHERE waiting_for <> '' AND held = 0;

CREATE TABLE message_body (
	id         bytea  PRIMARY KEY,
	received   bigint NOT NULL,
	expires    bigint NOT NULL,
	size       bigint NOT NULL,
	chunk      bigint NOT NULL, -- part of content
	chunks     bigint NOT NULL,
	last_reply bytea  NOT NULL,
	recipients bytea  NOT NULL,
	fixed      bytea  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX message_body_chunk ON message_body (chunk);

CREATE VIEW queued AS SELECT m.id, login, received, expires, size, chunk, chunks, attempts, next, lease_owner,
	lease_until, waiting_for, held, bounce, warned, hold_reason, last_reply, recipients, fixed
	FROM message m JOIN message_body b ON b.id = m.id;

CREATE TABLE content (
	part bigint NOT NULL, -- hours since 1970
	id   bytea  NOT NULL,
	n    bigint NOT NULL, -- from 0
	data bytea  NOT NULL,
	PRIMARY KEY (part, id, n)
) PARTITION BY LIST (part);
ALTER TABLE content ALTER data SET STORAGE EXTERNAL;

CREATE TABLE counter (
	k        bigint PRIMARY KEY,
	messages bigint NOT NULL,
	held     bigint NOT NULL,
	bytes    bigint NOT NULL,
	events   bigint NOT NULL,
	history  bigint NOT NULL,
	refusals bigint NOT NULL,
	batch    bigint NOT NULL DEFAULT 0 -- that the node wrote last: see bulkCounters
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
INSERT INTO counter VALUES (0, 0, 0, 0, 0, 0, 0);

CREATE TABLE node (
	name    bytea  PRIMARY KEY,
	k       bigint NOT NULL UNIQUE, -- from 1: its row of the counters
	boot    bytea  NOT NULL,        -- of the process
	home    bytea  NOT NULL,        -- of its data directory
	host    bytea  NOT NULL,
	version bytea  NOT NULL,
	started bigint NOT NULL,        -- times are nanoseconds since 1970 by the server's clock
	seen    bigint NOT NULL,
	until   bigint NOT NULL         -- it lives until then at least; 0: it has ended
);
`
