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
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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

// patience is how much longer than a statement may take we wait for its answer.
const patience = 5 * time.Second

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
	server Server
	limits limits
	run    session
}

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
		}, Control: giveUpSilence}).DialContext
	}
	// PgBouncer takes these as well.
	if pc.RuntimeParams["application_name"] == "" {
		pc.RuntimeParams["application_name"] = strings.TrimSuffix("postern "+cfg.Node, " ")
	}
	pc.RuntimeParams["client_encoding"] = "UTF8"
	pc.RuntimeParams["standard_conforming_strings"] = "on"
	if pc.ValidateConnect == nil && hosts(pc) > 1 {
		pc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return pc, nil
}

// hosts is how many there are in the URL. Of several all but one are standbys.
func hosts(pc *pgconn.Config) int {
	type place struct {
		host string
		port uint16
	}
	all := map[place]bool{{pc.Host, pc.Port}: true}
	for _, f := range pc.Fallbacks {
		all[place{f.Host, f.Port}] = true
	}
	return len(all)
}

// Open connects to a database: of several hosts, to the first that takes writes, unless the URL says otherwise.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	pc, err := parse(cfg)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok { // one that is silent must not take the time of the next
		pc.ConnectTimeout = min(pc.ConnectTimeout, max(time.Until(end)/time.Duration(hosts(pc)), 1))
	}
	pg, err := pgconn.ConnectConfig(ctx, pc)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	c := &Conn{
		pg: pg,
		limits: limits{orDefault(cfg.StatementTimeout, 30*time.Second), orDefault(cfg.LockTimeout, 10*time.Second),
			orDefault(cfg.IdleTimeout, 15*time.Second)},
	}
	if err := c.server.look(ctx, pg); err != nil {
		_ = pg.Close(ctx)
		return nil, err
	}
	c.run = newSession(pg, c.server.Pooled)
	if err := c.applyLimits(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// look asks a server what it is, and refuses one that will not do.
func (s *Server) look(ctx context.Context, pg *pgconn.PgConn) error {
	said, err := ask(ctx, pg, `SELECT pg_backend_pid(), current_setting('server_version_num'),
		pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, current_setting('synchronous_commit'),
		current_setting('synchronous_standby_names'), current_setting('fsync'),
		current_setting('standard_conforming_strings'), current_setting('default_transaction_isolation')`)
	if err != nil {
		return err
	}
	s.Version, _ = strconv.Atoi(said[1])
	s.Pooled = said[0] != strconv.FormatUint(uint64(pg.PID()), 10)
	s.Standby, s.Commit, s.Standbys, s.Fsync = said[2] == "t", said[3], said[4], said[5] == "on"
	if s.Version < oldest {
		return &Error{Msg: fmt.Sprintf("the database server is too old (%d): PostgreSQL 14 or newer is needed",
			s.Version), kind: db.Refused}
	}
	if said[6] != "on" {
		return &Error{Msg: "the pooler does not pass on standard_conforming_strings: set track_extra_parameters or " +
			"turn it on in postgresql.conf", kind: db.Refused}
	}
	if s.Pooled && said[7] != isolation {
		return &Error{Msg: fmt.Sprintf("default_transaction_isolation is %s, which cannot be changed through the "+
			"pooler: set it to %s for the role", said[7], isolation), kind: db.Refused}
	}
	return nil
}

// isolation is what transactions have that write: each of their statements sees what others have committed before it.
const isolation = "read committed"

// settings are the expressions that make ours. What waits for a standby more than "on" does is left as it is; also
// remote_write, which trusts that the machine of the standby does not fail together with the primary.
func (l limits) settings(durable string, local bool) string {
	if durable == "off" || durable == "local" {
		durable = "on"
	}
	return "SELECT " + strings.Join([]string{
		setting("statement_timeout", ms(l.statement), local),
		setting("lock_timeout", ms(l.lock), local),
		setting("idle_in_transaction_session_timeout", ms(l.idle), local),
		setting("synchronous_commit", durable, local),
		setting("default_transaction_isolation", isolation, local),
	}, ", ")
}

func setting(name, value string, local bool) string {
	return fmt.Sprintf("set_config('%s', '%s', %t)", name, value, local)
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func (c *Conn) applyLimits(ctx context.Context) error {
	settings := c.limits.settings(c.server.Commit, c.server.Pooled)
	c.run.link.limit = c.limits.statement
	if c.server.Pooled {
		c.run.local = &stmt{text: settings}
	}
	said, err := ask(ctx, c.pg, settings)
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
func ask(ctx context.Context, pg *pgconn.PgConn, query string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	r := pg.ExecParams(ctx, query, nil, nil, nil, nil).Read()
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
	if err := c.run.settle(); err != nil {
		return err
	}
	c.limits.statement = d
	return c.applyLimits(ctx)
}

// Lost reports that the connection cannot be used any more.
func (c *Conn) Lost() bool { return c.run.link.lost != nil }

// Alive finds out whether the server has ended the connection meanwhile, without asking it: what has not come is not
// waited for. Within a transaction it does not. It may be interrupted.
func (c *Conn) Alive() bool {
	c.run.guard.enter()
	defer c.run.guard.leave()
	l := c.run.link
	for l.lost == nil && l.bare() {
		said, err := peek(l.net)
		switch {
		case err != nil:
			l.lose(err)
		case said && l.owed > 0:
			_ = l.sync()
			continue
		case said: // a farewell, or something of no importance
			_ = c.run.execute("SELECT 1", nil, nil)
		}
		break
	}
	return l.lost == nil
}

// InTransaction reports whether a transaction is open.
func (c *Conn) InTransaction() bool { return c.run.link.inTransaction() }

// Changes is the number of rows that the last INSERT, UPDATE or DELETE touched.
func (c *Conn) Changes() int64 { return c.run.link.changes }

// TotalChanges is the number of rows that were inserted, updated or deleted since the connection was opened, whether
// committed or not.
func (c *Conn) TotalChanges() int64 { return c.run.link.total }

// Close closes the connection. It may be called twice.
func (c *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l := c.run.link
	if l.lost != nil {
		_ = c.pg.Close(ctx)
		return nil
	}
	l.lost = &Error{Msg: "the connection to the database is closed", kind: db.Gone}
	_ = l.net.SetDeadline(time.Now().Add(patience))
	return c.pg.Close(ctx)
}

// Interrupt ends what the connection runs with the kind Interrupted, unless that is a commit. It may be called from any
// goroutine while the connection is not being closed, and returns when the server has been told.
func (c *Conn) Interrupt() { c.run.guard.interrupt(c.pg, c.run.link) }
