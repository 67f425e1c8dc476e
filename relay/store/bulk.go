package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
	"postern/relay/trace"
)

// bulk is a write that a server does together with others, a statement for all of a kind, all in one round trip. It
// needs no lock but those of its rows, so that nodes do not wait for each other: each statement says in which state it
// wants its rows.
type bulk interface {
	// join puts the write into a batch. It reports false where it must run alone, after all that is in the batch.
	join(b *batch, answer answers) bool
}

// answers are where a batch says what became of its writes.
type answers struct {
	results []error
	i       int
}

func (a answers) say(err error) { a.results[a.i] = err }

// batch gathers writes of a transaction as columns, since a statement takes arrays.
type batch struct {
	*server
	parts  map[int64]bool    // of content that must be there
	calls  map[string]*stack // by statement
	order  []string          // statements, in the order that they are sent
	busy   map[string]bool   // messages that are in it: a statement changes a row once
	events map[int64]bool    // numbers
	owed   []answers         // to who writes events
	adds   counters          // to the counters
	id     int64             // the number that it leaves; random
	sent   bool              // it may take place
}

// stack is the rows of one statement.
type stack struct {
	columns []any // *[]int64, *[]string or *[][]byte
	answers map[string]answers
}

// row adds a row to a statement.
func (b *batch) row(query string, values ...any) *stack {
	s := b.calls[query]
	if s == nil {
		s = &stack{answers: map[string]answers{}}
		b.calls[query] = s
		b.order = append(b.order, query)
		for _, v := range values {
			switch v.(type) {
			case int64, int, bool:
				s.columns = append(s.columns, new([]int64))
			case string:
				s.columns = append(s.columns, new([]string))
			case []byte:
				s.columns = append(s.columns, new([][]byte))
			}
		}
	}
	for i, v := range values {
		switch v := v.(type) {
		case int64:
			push(s, i, v)
		case int:
			push(s, i, int64(v))
		case bool:
			push(s, i, bit(v))
		case string:
			push(s, i, v)
		case []byte:
			push(s, i, v)
		}
	}
	return s
}

func push[T any](s *stack, i int, v T) {
	column := s.columns[i].(*[]T)
	*column = append(*column, v)
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (s *stack) args() []any {
	args := make([]any, 0, len(s.columns)+1)
	for _, c := range s.columns {
		switch c := c.(type) {
		case *[]int64:
			args = append(args, *c)
		case *[]string:
			args = append(args, *c)
		case *[][]byte:
			args = append(args, *c)
		}
	}
	return args
}

// only reports whether a message is not in the batch yet, and puts it in.
func (b *batch) only(id string) bool {
	if b.busy[id] {
		return false
	}
	b.busy[id] = true
	return true
}

// The statements. Those of messages return which they changed.
//
// ANY and <> 0 leave the primary key as the only index that fits. When vacuum has found the queue empty, the planner
// takes the table for one of no rows, and would read all that came or died since, for each batch. It takes the rows
// that a statement changes for one, so that nothing is joined to them.
const (
	bulkMessages = `INSERT INTO message SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[],
		$5::bytea[], $6::bigint[], $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[])`
	bulkBodies = `INSERT INTO message_body SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[],
		$5::bigint[], $6::bigint[], $7::bytea[], $8::bytea[], $9::bytea[])`
	bulkContent = `INSERT INTO content SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bytea[])`
	bulkRemove  = `WITH gone AS (
			DELETE FROM message m USING unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS f(id, attempts, owner)
			WHERE m.id = ANY($1) AND m.id = f.id AND m.attempts = f.attempts AND m.lease_owner = f.owner
				AND m.lease_until <> 0
			RETURNING m.id, m.held
		), body AS (
			DELETE FROM message_body b WHERE b.id = ANY(ARRAY(SELECT id FROM gone)) RETURNING b.size
		), counted AS (
			UPDATE counter SET messages = messages - (SELECT count(*) FROM gone),
				held = held - (SELECT count(*) FROM gone WHERE gone.held = 1),
				bytes = bytes - (SELECT coalesce(sum(size), 0) FROM body)
			WHERE k = $4::bigint
		) SELECT id FROM gone`
	bulkRecord = `WITH kept AS (
			UPDATE message m SET next = CASE WHEN m.bounce = 1 THEN least(f.next, m.next) ELSE f.next END,
				waiting_for = f.waiting_for, warned = f.warned, lease_owner = '', lease_until = 0
			FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bytea[],
				$8::bytea[]) AS f(id, attempts, owner, next, waiting_for, warned, recipients, last_reply)
			WHERE m.id = ANY($1) AND m.id = f.id AND m.attempts = f.attempts AND m.lease_owner = f.owner
				AND m.lease_until <> 0
			RETURNING m.id, f.recipients, f.last_reply
		), body AS (
			UPDATE message_body b SET (recipients, last_reply) =
				(SELECT kept.recipients, kept.last_reply FROM kept WHERE kept.id = b.id)
			WHERE b.id = ANY(ARRAY(SELECT id FROM kept))
		) SELECT id FROM kept`
	// What another node is just changing is not waited for: it is not the version that was seen any more.
	bulkLease = `WITH free AS (
			SELECT m.id, f.owner, f.attempts, f.until FROM message m
			JOIN unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])
				AS f(id, attempts, owner, now, until, before) ON m.id = f.id
			WHERE m.id = ANY($1) AND m.held = 0
				AND (m.attempts = f.attempts AND m.lease_owner = f.before AND m.lease_until <= f.now
				OR m.attempts = f.attempts + 1 AND m.lease_until > 0 AND m.lease_owner = f.owner)
			FOR UPDATE OF m SKIP LOCKED
		) UPDATE message m SET waiting_for = '', (attempts, lease_owner, lease_until) =
				(SELECT free.attempts + 1, free.owner, free.until FROM free WHERE free.id = m.id)
		WHERE m.id = ANY(ARRAY(SELECT id FROM free)) RETURNING m.id`
	bulkExtend = `UPDATE message m SET lease_until = f.until
		FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[]) AS f(id, attempts, owner, until)
		WHERE m.id = ANY($1) AND m.id = f.id AND m.attempts = f.attempts AND m.lease_owner = f.owner
			AND m.lease_until <> 0 RETURNING m.id`
	// Of so many rows: each unnest of a FROM would be written to a table of its own first.
	bulkEvents = `INSERT INTO event SELECT unnest($1::bigint[]), unnest($2::bytea[]), unnest($3::bytea[]),
		unnest($4::bytea[]), unnest($5::bytea[]), unnest($6::bytea[]), unnest($7::bytea[]), unnest($8::bytea[])`
	bulkShare = "SELECT pg_advisory_xact_lock_shared(1347638350, 3)" // see server.settled
	bulkLate  = `INSERT INTO search_late SELECT n FROM unnest($1::bigint[]) AS f(n), search_state s
		WHERE s.k = 1 AND f.n >= s.floor AND f.n < s.high ON CONFLICT DO NOTHING`
	// A batch of a daemon puts its number in place of the last one, or fails: one whose answer was lost either has its
	// number there, or is kept from taking place by another number (see fence). Numbers are random: a former life of
	// this daemon may have a batch under way. Commands share row 0 and have none.
	bulkCounters = `WITH done AS (
			UPDATE counter SET messages = messages + $1::bigint, held = held + $2::bigint,
				bytes = bytes + $3::bigint, events = events + $4::bigint, history = history + $5::bigint,
				refusals = refusals + $6::bigint, batch = CASE WHEN k = 0 THEN 0 ELSE $9::bigint END
			WHERE k = $7::bigint AND (k = 0 OR batch = $8::bigint) RETURNING 1
		) SELECT 1 / count(*) FROM done`
)

// bulkBecame are, by statement, queries for the messages that are now as the statement makes them.
var bulkBecame = map[string]string{
	bulkRemove: `SELECT f.id FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS f(id, attempts, owner)
		WHERE NOT EXISTS (SELECT FROM message m WHERE m.id = f.id)`,
	bulkRecord: `SELECT m.id FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bytea[],
			$6::bigint[], $7::bytea[], $8::bytea[])
			AS f(id, attempts, owner, next, waiting_for, warned, recipients, last_reply)
		JOIN message m ON m.id = f.id AND m.attempts = f.attempts AND m.lease_until = 0
			AND m.waiting_for = f.waiting_for AND m.warned = f.warned
		JOIN message_body b ON b.id = f.id AND b.recipients = f.recipients AND b.last_reply = f.last_reply`,
	bulkLease: `SELECT m.id
		FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])
			AS f(id, attempts, owner, now, until, before)
		JOIN message m ON m.id = f.id AND m.attempts = f.attempts + 1 AND m.lease_owner = f.owner
			AND m.lease_until = f.until`,
	bulkExtend: `SELECT m.id FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[])
			AS f(id, attempts, owner, until)
		JOIN message m ON m.id = f.id AND m.attempts = f.attempts AND m.lease_owner = f.owner
			AND m.lease_until = f.until`,
}

// addBulk adds messages.
type addBulk struct {
	s    *Store
	rows []*row
	size int64
}

// bulkContentMost is the size of contents, in octets, from which they are written chunk by chunk instead of being held
// as columns.
const bulkContentMost = 256 << 10

func (a addBulk) join(b *batch, answer answers) bool {
	if !a.s.opts.Daemon || a.size > bulkContentMost {
		return false
	}
	if most := a.s.opts.MaxBytes; most > 0 && b.queued+b.adds.bytes+a.size > most {
		return false // it is counted exactly then
	}
	contents := make([][]byte, len(a.rows))
	for i, r := range a.rows {
		if b.busy[r.m.ID] {
			return false
		}
		var err error
		if contents[i], err = octets(r.content); err != nil {
			return false // it says so alone
		}
	}
	for i, r := range a.rows {
		b.only(r.m.ID)
		b.add(r, contents[i])
	}
	answer.say(nil)
	return true
}

func octets(c mail.Content) ([]byte, error) {
	if b := c.Bytes(); b != nil {
		return b, nil
	}
	b := make([]byte, 0, c.Size())
	err := copyContent(c, func(data []byte) error {
		b = append(b, data...)
		return nil
	})
	return b, err
}

func (b *batch) add(r *row, content []byte) {
	m := r.m
	part := partOf(b.clock.nano(m.Received))
	b.parts[part] = true
	attempts, until := leaseOf(m, &b.clock)
	chunks := (len(content) + chunkSize - 1) / chunkSize
	b.row(bulkMessages, m.ID, m.Login, attempts, b.clock.nano(m.NextAttempt), m.LeaseOwner, until, m.WaitingFor, m.Held,
		m.Bounce, m.Warned, m.HoldReason)
	b.row(bulkBodies, m.ID, b.clock.nano(m.Received), b.clock.nano(m.Expires), int64(len(content)), part, chunks,
		r.lastReply, r.recipients, r.fixed)
	for n := range chunks {
		b.row(bulkContent, part, m.ID, n, content[n*chunkSize:min((n+1)*chunkSize, len(content))])
	}
	b.adds.messages++
	b.adds.bytes += int64(len(content))
	b.adds.held += bit(m.Held)
}

// finishBulk records the outcome of a message.
type finishBulk struct {
	v                 queue.Version
	owner             string
	outcome           queue.Outcome
	recipients, reply []byte // as they are stored
	reports           []*row
}

// newFinish also tells the size of the reports, in octets.
func newFinish(v queue.Version, owner string, o queue.Outcome) (f *finishBulk, size int64, err error) {
	f = &finishBulk{v: v, owner: owner, outcome: o}
	if !o.Remove {
		f.recipients, f.reply = encodeRecipients(nil, o.Recipients), encodeReply(o.LastReply)
	}
	f.reports, size, err = newRows(o.Reports)
	return f, size, err
}

func (f *finishBulk) join(b *batch, answer answers) bool {
	v, o := f.v, f.outcome
	if len(f.reports) > 0 || !b.only(v.ID) {
		return false
	}
	var s *stack
	if o.Remove {
		s = b.row(bulkRemove, v.ID, v.Attempts, f.owner)
	} else {
		s = b.row(bulkRecord, v.ID, v.Attempts, f.owner, b.clock.nano(o.NextAttempt), o.WaitingFor, o.Warned,
			f.recipients, f.reply)
	}
	s.answers[v.ID] = answer
	return true
}

// leaseBulk leases a message for an attempt.
type leaseBulk struct {
	v          queue.Version
	owner      string
	now, until time.Time
}

func (l leaseBulk) join(b *batch, answer answers) bool {
	v := l.v
	if !b.only(v.ID) {
		return false
	}
	s := b.row(bulkLease, v.ID, v.Attempts, l.owner, b.clock.nano(l.now), max(b.clock.nano(l.until), 1), v.Owner)
	s.answers[v.ID] = answer
	return true
}

// extendBulk extends a lease.
type extendBulk struct {
	v     queue.Version
	owner string
	until time.Time
}

func (e extendBulk) join(b *batch, answer answers) bool {
	v := e.v
	if !b.only(v.ID) {
		return false
	}
	b.row(bulkExtend, v.ID, v.Attempts, e.owner, max(b.clock.nano(e.until), 1)).answers[v.ID] = answer
	return true
}

// split implements transactor: what joins a batch, and what needs the lock of all nodes.
func (s *server) split(ops []*op) (groups [][]*op) {
	var together, others []*op
	for _, o := range ops {
		if o.bulk != nil {
			together = append(together, o)
		} else {
			others = append(others, o)
		}
	}
	for _, group := range [][]*op{together, others} {
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// together runs writes that join a batch, and then, each alone, those that do not.
func (s *server) together(ops []*op) (did outcome, err error) {
	b := &batch{server: s, parts: map[int64]bool{}, calls: map[string]*stack{}, busy: map[string]bool{},
		events: map[int64]bool{}, id: rand.Int64()}
	did.results = make([]error, len(ops))
	var rest []int
	for i, o := range ops {
		if !o.bulk.join(b, answers{did.results, i}) {
			rest = append(rest, i)
		}
	}
	if len(rest) < len(ops) {
		conn, err := s.writing()
		if err != nil {
			return did, err
		}
		err = b.send(conn)
		switch {
		case conn.Lost():
			if err = b.fence(s.over(conn, err)); err == nil {
				err = b.ask()
			}
			if err != nil {
				return did, err
			}
		case db.KindOf(err) == db.Taken && len(ops) == 1:
			return s.try(ops) // the number of an event is another one's
		}
		if err != nil {
			did.alone = ofOne(conn, err)
			return did, s.over(conn, err)
		}
		did.wrote = true
	}
	for _, i := range rest {
		one, err := s.transact([]*op{{run: ops[i].run}})
		if err == nil {
			err = one.results[0]
		}
		did.results[i], did.wrote = err, did.wrote || one.wrote
	}
	return did, nil
}

// send runs the batch in one round trip and hears what became of its messages.
func (b *batch) send(conn *postgres.Conn) error {
	if err := b.ensure(conn); err != nil {
		return err
	}
	var calls []postgres.Call
	for _, query := range b.order {
		args := b.calls[query].args()
		if query == bulkRemove {
			args = append(args, b.node.Load())
		}
		calls = append(calls, postgres.Call{Query: query, Args: args})
	}
	c, node := b.adds, b.node.Load()
	if b.lapsed {
		var err error
		if b.batch, _, err = conn.Int(batchOf, node); err != nil {
			return err
		}
		b.lapsed = false
	}
	calls = append(calls, postgres.Call{Query: bulkCounters, Args: []any{c.messages, c.held, c.bytes, c.events,
		c.history, c.refusals, node, b.batch, b.id}})
	calls = append(calls, postgres.Call{Query: "SELECT coalesce(sum(bytes), 0)::bigint FROM counter"})
	b.sent = true
	results, err := conn.Pipeline(context.Background(), calls)
	if err != nil {
		b.lapsed = postgres.CodeOf(err) == "22012" // division by zero
		b.known, b.placed = 0, eventPart{}         // parts may have been dropped since
		return err
	}
	b.batch = b.id
	for i, query := range b.order {
		s := b.calls[query]
		if len(s.answers) == 0 {
			continue
		}
		for row := range results[i].Rows() {
			delete(s.answers, row.Text(0)) // it is nil already
		}
		s.missing()
	}
	for row := range results[len(results)-1].Rows() {
		b.queued = row.Int(0)
	}
	return nil
}

// ensure makes the parts of content and of the trace that are missing.
func (b *batch) ensure(conn *postgres.Conn) error {
	for part := range b.parts {
		if b.known == part {
			continue
		}
		if err := inTransaction(conn, func() error { return b.makePart(conn, part) }); err != nil {
			return err
		}
		b.known = max(b.known, part)
	}
	err := b.ensureEvents(conn)
	if err != nil && !conn.Lost() {
		b.withoutEvents(fmt.Errorf("%w: %w", trace.ErrSinkAway, err))
		return nil
	}
	return err
}

// inTransaction runs something in a transaction of its own.
func inTransaction(conn *postgres.Conn, run func() error) error {
	if _, err := conn.Begin(); err != nil {
		return err
	}
	if err := run(); err != nil {
		return errors.Join(err, conn.Rollback())
	}
	return conn.Commit()
}

const batchOf = "SELECT batch FROM counter WHERE k = ?"

// fence finds out whether a batch whose answer was lost took place, or sees to it that it never will: nil, or an error
// of it.
func (b *batch) fence(cause error) error {
	node := b.node.Load()
	switch {
	case !b.sent:
		return cause
	case node == 0:
		return b.resolve(cause)
	}
	before, done, fenced := b.batch, b.id, rand.Int64()
	b.lapsed = true
	return b.settle(cause, func(conn *postgres.Conn) (postgres.Outcome, error) {
		err := conn.Run("UPDATE counter SET batch = ? WHERE k = ? AND batch = ?", fenced, node, before)
		if err != nil {
			return postgres.Unknown, err
		}
		now, _, err := conn.Int(batchOf, node)
		if err != nil {
			return postgres.Unknown, err
		}
		b.batch, b.lapsed = now, false
		switch now {
		case done:
			return postgres.Committed, nil
		case fenced:
			return postgres.Aborted, nil
		}
		return postgres.Unknown, nil
	})
}

// ask finds out, after a batch whose answer was lost but which took place, which messages were in the state that they
// had to be in: those that are now as they were to become.
func (b *batch) ask() error {
	conn, err := b.writing()
	if err != nil {
		return fmt.Errorf("%w: %w", errDoubt, err)
	}
	for _, query := range b.order {
		s := b.calls[query]
		if len(s.answers) == 0 {
			continue
		}
		for row, err := range conn.Rows(bulkBecame[query], s.args()...) {
			if err != nil {
				return fmt.Errorf("%w: %w", errDoubt, b.over(conn, err))
			}
			delete(s.answers, row.Text(0))
		}
		s.missing()
	}
	return nil
}

// missing answers for the messages that a statement did not change.
func (s *stack) missing() {
	for _, answer := range s.answers {
		answer.say(queue.ErrNotFound)
	}
}
