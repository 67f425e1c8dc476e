// Package postgres is the store's connection to PostgreSQL 14 or newer: the extended protocol over a connection that
// pgconn makes, with prepared statements that stay, results in binary, and several statements in one round trip.
//
// Statements are written in the dialect of SQLite: see Translate. Texts and blobs are bytea, so that order and octets
// are those of SQLite. Each statement has a deadline, at the server and here. A Conn does not reconnect: after an error
// of the kind Gone, Lost is true and its owner opens another.
//
// Through a pooler (PgBouncer) transactions may each have another connection to the server. Open finds out, and then
// settings are made in each transaction and no statement stays prepared.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"postern/relay/store/internal/db"
)

var (
	_ db.Conn  = (*Conn)(nil)
	_ db.Row   = (*Row)(nil)
	_ db.Error = (*Error)(nil)
)

// Config is how to reach a database. A duration of 0 is the default, one below 0 is no limit.
type Config struct {
	URL  string // postgres://…, or key=value pairs, as libpq knows them
	Node string // told to the server in application_name

	StatementTimeout time.Duration // longest time of a statement; 30 s
	LockTimeout      time.Duration // longest wait for a lock; 10 s
	IdleTimeout      time.Duration // longest pause within a transaction; 15 s
	ConnectTimeout   time.Duration // for each address, unless the URL has connect_timeout; 10 s

	Dial pgconn.DialFunc // nil: of the system, with keep-alives
}

// grace is how much longer than its statement may take we wait for an answer.
const grace = 5 * time.Second

// oldest is the oldest version of PostgreSQL that has what we use.
const oldest = 140000

// Server is what a server said of itself when the connection was made.
type Server struct {
	Version  int    // 150000 and so on
	Pooled   bool   // through a pooler
	Standby  bool   // or read-only
	Commit   string // synchronous_commit that is in force for us
	Standbys string // synchronous_standby_names
	Fsync    bool   // false: what is committed is lost when the machine fails
}

// Conn is a connection to a database.
type Conn struct {
	pg     *pgconn.PgConn // made the connection; only asked to cancel and to close since
	net    net.Conn
	front  *pgproto3.Frontend
	server Server
	limits limits
	local  *stmt // makes our settings within a transaction; nil: they were made for the session

	stmts   map[string]*stmt // by query
	names   int              // of prepared statements
	queue   []call           // sent or about to be, in order
	scratch scratch
	status  byte // as ReadyForQuery said: idle, inside or failed
	owed    int  // ReadyForQuery that nobody waited for
	cursors int  // loops of Rows outside of transactions that have not read all
	aborts  int  // counts errors, after which no cursor is left
	xid     XID  // of the transaction that Begin started
	alone   bool // a commit did not wait for its standby

	changes, total int64
	lost           *Error

	mu         sync.Mutex
	depth      int           // guarded by mu; calls that run, one within the loop of another
	protected  bool          // guarded by mu; a commit is not interrupted
	stopped    bool          // guarded by mu; by Interrupt
	cancelling chan struct{} // guarded by mu; closed when the server has taken the request
}

// Transactions as ReadyForQuery tells them.
const (
	idle   = 'I'
	inside = 'T'
	failed = 'E'
)

// limits are what the server holds us to.
type limits struct{ statement, lock, idle time.Duration }

func orDefault(d, or time.Duration) time.Duration {
	switch {
	case d == 0:
		return or
	case d < 0:
		return 0
	}
	return d
}

// Check reports what is wrong with a URL. Its error does not have the password.
func Check(url string) error {
	_, err := parse(Config{URL: url})
	return err
}

func parse(cfg Config) (*pgconn.Config, error) {
	pc, err := pgconn.ParseConfig(cfg.URL)
	if err != nil {
		return nil, &Error{Msg: "the URL of the database cannot be read", Err: err, kind: db.Refused}
	}
	if pc.ConnectTimeout == 0 || !strings.Contains(cfg.URL, "connect_timeout") {
		pc.ConnectTimeout = orDefault(cfg.ConnectTimeout, 10*time.Second)
	}
	if pc.DialFunc = cfg.Dial; pc.DialFunc == nil {
		pc.DialFunc = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
		}}).DialContext
	}
	// PgBouncer takes these as well.
	if pc.RuntimeParams["application_name"] == "" {
		pc.RuntimeParams["application_name"] = strings.TrimSuffix("postern "+cfg.Node, " ")
	}
	pc.RuntimeParams["client_encoding"] = "UTF8"
	pc.RuntimeParams["standard_conforming_strings"] = "on"
	if pc.ValidateConnect == nil && severalHosts(pc) {
		pc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return pc, nil
}

// severalHosts: of several hosts all but one are standbys.
func severalHosts(pc *pgconn.Config) bool {
	for _, f := range pc.Fallbacks {
		if f.Host != pc.Host || f.Port != pc.Port {
			return true
		}
	}
	return false
}

// Open connects to a database: of several hosts, to the first that takes writes, unless the URL says otherwise.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	pc, err := parse(cfg)
	if err != nil {
		return nil, err
	}
	pg, err := pgconn.ConnectConfig(ctx, pc)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	c := &Conn{
		pg: pg, net: pg.Conn(), front: pg.Frontend(), stmts: map[string]*stmt{}, status: idle,
		limits: limits{orDefault(cfg.StatementTimeout, 30*time.Second), orDefault(cfg.LockTimeout, 10*time.Second),
			orDefault(cfg.IdleTimeout, 15*time.Second)},
	}
	if err := c.prepare(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// prepare looks at the server and makes our settings.
func (c *Conn) prepare(ctx context.Context) error {
	said, err := c.ask(ctx, `SELECT pg_backend_pid(), current_setting('server_version_num'),
		pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, current_setting('synchronous_commit'),
		current_setting('synchronous_standby_names'), current_setting('fsync'),
		current_setting('standard_conforming_strings')`)
	if err != nil {
		return err
	}
	s := &c.server
	s.Version, _ = strconv.Atoi(said[1])
	s.Pooled = said[0] != strconv.FormatUint(uint64(c.pg.PID()), 10)
	s.Standby, s.Commit, s.Standbys, s.Fsync = said[2] == "t", said[3], said[4], said[5] == "on"
	if s.Version < oldest {
		return &Error{Msg: fmt.Sprintf("the database server is too old (%d): PostgreSQL 14 or newer is needed",
			s.Version), kind: db.Refused}
	}
	if said[6] != "on" {
		return &Error{Msg: "the pooler does not pass on standard_conforming_strings: set track_extra_parameters or " +
			"turn it on in postgresql.conf", kind: db.Refused}
	}
	return c.applyLimits(ctx)
}

// settings are the expressions that make ours. What waits for a standby more than "on" does is left as it is; also
// remote_write, which trusts that the machine of the standby does not fail together with the primary.
func (c *Conn) settings(local bool) string {
	list := []string{
		setting("statement_timeout", ms(c.limits.statement), local),
		setting("lock_timeout", ms(c.limits.lock), local),
		setting("idle_in_transaction_session_timeout", ms(c.limits.idle), local),
	}
	if durable := c.server.Commit; durable == "off" || durable == "local" {
		list = append(list, setting("synchronous_commit", "on", local))
	} else {
		list = append(list, setting("synchronous_commit", durable, local))
	}
	return strings.Join(list, ", ")
}

func setting(name, value string, local bool) string {
	return fmt.Sprintf("set_config('%s', '%s', %t)", name, value, local)
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func (c *Conn) applyLimits(ctx context.Context) error {
	if c.server.Pooled {
		c.local = &stmt{text: "SELECT " + c.settings(true)}
	}
	said, err := c.ask(ctx, "SELECT "+c.settings(c.server.Pooled))
	if err != nil {
		return err
	}
	if c.server.Commit = said[3]; c.server.Commit == "off" || c.server.Commit == "local" {
		return &Error{Msg: fmt.Sprintf("synchronous_commit is %s and cannot be set: what is accepted could be lost: "+
			"set it to on for the role", c.server.Commit), kind: db.Refused}
	}
	return nil
}

// ask runs a query of one row of texts while the connection is set up.
func (c *Conn) ask(ctx context.Context, query string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limits.statement+grace)
	defer cancel()
	r := c.pg.ExecParams(ctx, query, nil, nil, nil, nil).Read()
	if r.Err == nil && len(r.Rows) != 1 {
		r.Err = errors.New("it did not answer with one row")
	}
	if r.Err != nil {
		return nil, connectError(ctx, r.Err)
	}
	row := make([]string, len(r.Rows[0]))
	for i, v := range r.Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// Server returns what the server said of itself when the connection was made.
func (c *Conn) Server() Server { return c.server }

// SetStatementTimeout changes how long a statement may take; 0: as long as it needs, for migrations.
func (c *Conn) SetStatementTimeout(ctx context.Context, d time.Duration) error {
	if err := c.settled(); err != nil {
		return err
	}
	c.limits.statement = d
	return c.applyLimits(ctx)
}

// settled makes sure that the connection is pgconn's to use for a moment: nothing runs and no answer is owed.
func (c *Conn) settled() error {
	if c.status != idle || c.cursors > 0 {
		return errors.New("postgres: a transaction is open")
	}
	if c.lost != nil {
		return c.lost
	}
	for c.owed > 0 {
		if err := c.sync(); err != nil {
			return err
		}
	}
	return c.net.SetDeadline(time.Time{})
}

// Lost reports that the connection cannot be used any more.
func (c *Conn) Lost() bool { return c.lost != nil }

// InTransaction reports whether a transaction is open.
func (c *Conn) InTransaction() bool { return c.lost == nil && c.status != idle }

// Changes is the number of rows that the last INSERT, UPDATE or DELETE touched.
func (c *Conn) Changes() int64 { return c.changes }

// TotalChanges is the number of rows that were inserted, updated or deleted since the connection was opened, whether
// committed or not.
func (c *Conn) TotalChanges() int64 { return c.total }

// Close closes the connection. It may be called twice.
func (c *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if c.lost == nil {
		c.lost = &Error{Msg: "the connection to the database is closed", kind: db.Gone}
	}
	_ = c.net.SetDeadline(time.Now().Add(grace))
	return c.pg.Close(ctx)
}

// enter begins a call, which Interrupt may end.
func (c *Conn) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.depth++
}

// leave ends a call. It waits until a request to cancel has arrived, which would hit the next statement otherwise.
func (c *Conn) leave() {
	c.mu.Lock()
	c.depth--
	pending := c.cancelling
	if c.depth > 0 {
		pending = nil
	}
	c.mu.Unlock()
	if pending == nil {
		return
	}
	<-pending
	c.mu.Lock()
	c.cancelling, c.stopped = nil, false
	c.mu.Unlock()
}

// protect keeps a commit from being interrupted: it would be done, but not wait for the standby.
func (c *Conn) protect(on bool) {
	c.mu.Lock()
	c.protected = on
	c.mu.Unlock()
}

func (c *Conn) isStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// Interrupt ends what the connection runs with the kind Interrupted, unless that is a commit. It may be called from any
// goroutine while the connection is not being closed, and returns when the server has been told.
func (c *Conn) Interrupt() {
	c.mu.Lock()
	if c.depth == 0 || c.protected || c.cancelling != nil {
		c.mu.Unlock()
		return
	}
	done := make(chan struct{})
	c.stopped, c.cancelling = true, done
	c.mu.Unlock()
	defer close(done)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := c.pg.CancelRequest(ctx); err != nil { // then the connection has to go
		_ = c.net.SetDeadline(time.Now())
	}
}
