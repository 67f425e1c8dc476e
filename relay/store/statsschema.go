package store

// schemaStats keeps sums by hour and by day. dim and data are those of package stats; at counts hours since 1970, or
// days.
const schemaStats = `
CREATE TABLE stat_hour (
	dim INTEGER NOT NULL, at INTEGER NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (dim, at, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE stat_day (
	dim INTEGER NOT NULL, at INTEGER NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (dim, at, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE stat_count (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID; -- rows
INSERT INTO stat_count VALUES ('hour', 0), ('day', 0);
`
