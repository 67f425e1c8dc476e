package store

// schemaEventParts, for PostgreSQL alone, divides event by time: see eventparts.go. What there is becomes the first
// part, in which is also all that is older. It is done in SQL since a bound follows from the rows.
const schemaEventParts = `
DO $$
DECLARE
	until bigint := greatest((SELECT max(n) + 1 FROM event),
		floor(extract(epoch FROM clock_timestamp()))::bigint * 1000000000);
	former text := format('event_0_%s', until);
BEGIN
	EXECUTE format('ALTER TABLE event RENAME TO %s', former);
	ALTER INDEX event_pkey    RENAME TO event_0_pkey;
	ALTER INDEX event_id      RENAME TO event_0_id;
	ALTER INDEX event_session RENAME TO event_0_session;
	ALTER INDEX event_login   RENAME TO event_0_login;
	ALTER INDEX event_sender  RENAME TO event_0_sender;
	ALTER INDEX event_rcpt    RENAME TO event_0_rcpt;
	ALTER INDEX event_refusal RENAME TO event_0_refusal;
	CREATE TABLE event (
		n       bigint PRIMARY KEY,
		kind    bytea NOT NULL,
		id      bytea NOT NULL,
		session bytea NOT NULL,
		login   bytea NOT NULL,
		sender  bytea NOT NULL,
		rcpt    bytea NOT NULL,
		data    bytea NOT NULL
	) PARTITION BY RANGE (n);
	CREATE INDEX event_id      ON event (id)      WHERE id <> '';
	CREATE INDEX event_session ON event (session) WHERE session <> '';
	CREATE INDEX event_login   ON event (login)   WHERE login <> '';
	CREATE INDEX event_sender  ON event (sender)  WHERE sender <> '';
	CREATE INDEX event_rcpt    ON event (rcpt)    WHERE rcpt <> '';
	CREATE INDEX event_refusal ON event (n)       WHERE kind IN ('refused', 'auth-fail', 'rejected');
	EXECUTE format('ALTER TABLE event ATTACH PARTITION %s FOR VALUES FROM (MINVALUE) TO (%s)', former, until);
END $$;
`
