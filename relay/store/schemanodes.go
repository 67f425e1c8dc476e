package store

// schemaNodes is for PostgreSQL alone. It is what several nodes need that work at the same time: which one does what
// only one is to do, and what people have asked of each.
const schemaNodes = `
ALTER TABLE node ADD COLUMN drained  bigint NOT NULL DEFAULT 0;  -- it takes no mail and begins no attempt
ALTER TABLE node ADD COLUMN settings bytea  NOT NULL DEFAULT ''; -- a digest of its configuration
ALTER TABLE node ADD COLUMN answered bigint NOT NULL DEFAULT 0;  -- see AnswerEvents
CREATE TABLE leader (
	k     bigint PRIMARY KEY, -- 1
	node  bytea  NOT NULL,
	until bigint NOT NULL     -- nanoseconds since 1970 by the server's clock
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
INSERT INTO leader VALUES (1, '', 0);
CREATE TABLE alert_told (
	k      bytea  NOT NULL, -- digest of a hook, an event and a subject that holds for the node
	node   bytea  NOT NULL,
	since  bigint NOT NULL, -- by the clock of the node
	told   bigint NOT NULL, -- to the hook, by any node; nanoseconds since 1970 by the server's clock
	teller bigint NOT NULL, -- by this one
	PRIMARY KEY (k, node)
);
`
