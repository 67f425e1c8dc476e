package store

// layout is how messages lie in the tables of an engine: the statements that differ. Both engines take the same
// arguments.
type layout struct {
	counters   string // how many rows there are, and the counts
	find       string // id: as findQuery, and nobody else changes it meanwhile
	insert     string // a message: all columns of queued, in their order
	remove     string // id
	record     string // id, recipients, next, what it waits for, warned, last reply: it ends the lease
	recordLate string // id, recipients, last reply: the lease stays
	resend     string // id, recipients, next, expires

	// A content is cut into chunks that are counted from 0. What column chunk of its message has says where they are.
	putChunk string // chunk of the message, number, id, data
	getChunk string // chunk of the message, number, id
	dropAll  string // chunk of the message, how many; "": they go otherwise
}

// fileLayout: the chunks of all contents are one table, numbered in a row; column chunk has the first number.
var fileLayout = &layout{
	counters: "SELECT 1, messages, held, bytes, events, history, refusals FROM counter",
	find:     findQuery,
	insert:   "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	remove:   "DELETE FROM message WHERE id = ?",
	record: `UPDATE message SET recipients = ?2, next = ?3, waiting_for = ?4, warned = ?5, last_reply = ?6,
		lease_owner = '', lease_until = 0 WHERE id = ?1`,
	recordLate: "UPDATE message SET recipients = ?2, last_reply = ?3 WHERE id = ?1",
	resend: `UPDATE message SET recipients = ?2, next = ?3, waiting_for = '', bounce = 0, expires = ?4,
		attempts = attempts + 1 WHERE id = ?1`,

	putChunk: "INSERT INTO chunk VALUES (?1 + ?2, ?3, ?4)",
	getChunk: "SELECT data FROM chunk WHERE n = ?1 + ?2 AND id = ?3", // numbers are used again
	dropAll:  "DELETE FROM chunk WHERE n >= ?1 AND n < ?1 + ?2",
}

// serverLayout: see schemaServer. Column chunk has the part of content.
var serverLayout = &layout{
	counters: `SELECT count(*), coalesce(sum(messages), 0), coalesce(sum(held), 0), coalesce(sum(bytes), 0),
		coalesce(sum(events), 0), coalesce(sum(history), 0), coalesce(sum(refusals), 0) FROM counter`,
	find: findQuery + " FOR UPDATE",
	insert: `WITH m AS (INSERT INTO message VALUES (?1, ?2, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16))
		INSERT INTO message_body VALUES (?1, ?3, ?4, ?5, ?6, ?7, ?17, ?18, ?19)`,
	remove: "WITH m AS (DELETE FROM message WHERE id = ?1) DELETE FROM message_body WHERE id = ?1",
	record: `WITH m AS (UPDATE message SET next = ?3, waiting_for = ?4, warned = ?5, lease_owner = '', lease_until = 0
		WHERE id = ?1) UPDATE message_body SET recipients = ?2, last_reply = ?6 WHERE id = ?1`,
	recordLate: "UPDATE message_body SET recipients = ?2, last_reply = ?3 WHERE id = ?1",
	resend: `WITH m AS (UPDATE message SET next = ?3, waiting_for = '', bounce = 0,
			attempts = attempts + 1 WHERE id = ?1)
		UPDATE message_body SET recipients = ?2, expires = ?4 WHERE id = ?1`,

	putChunk: "INSERT INTO content (part, n, id, data) VALUES (?1, ?2, ?3, ?4)",
	getChunk: "SELECT data FROM content WHERE part = ?1 AND n = ?2 AND id = ?3",
}
