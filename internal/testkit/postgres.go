package testkit

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// The accounts of a PG. The relay's is an ordinary one that owns its databases; its password must be escaped in a URL.
const (
	PGUser     = "postern"
	PGPassword = "p@ss:w/rd?"
	PGDatabase = "postern"

	pgAdmin         = "postgres"
	pgAdminPassword = "admin"
	pgHost          = "127.0.0.1"
)

// PG is a real PostgreSQL server of a test's own, on a port of 127.0.0.1 that it keeps, with passwords by
// SCRAM-SHA-256. It may be stopped, killed and started again.
type PG struct {
	t        testing.TB
	server   *pgServer
	ofAll    bool     // no test may do to it what others would notice
	standbys []string // names of the synchronous ones
}

// PostgreSQL starts a server.
func PostgreSQL(t testing.TB) *PG {
	t.Helper()
	p := newPG(t, "")
	t.Cleanup(p.server.cleanup)
	return p
}

func newPG(t testing.TB, parent string) *PG {
	t.Helper()
	s := newPGServer(t, parent)
	if err := s.dir.fill(t, s.conf()); err != nil {
		s.end()
		t.Fatal(err)
	}
	s.launch()
	return &PG{t: t, server: s}
}

// URL returns the address of the database PGDatabase, for PGUser. With its standbys it is one address of all of them,
// of which the client takes the one that can be written to.
func (p *PG) URL(standbys ...*PG) string {
	p.t.Helper()
	p.own("URL")
	if len(standbys) == 0 {
		return p.url(PGUser, PGPassword, PGDatabase)
	}
	hosts := []string{p.Address()}
	for _, s := range standbys {
		hosts = append(hosts, s.Address())
	}
	return Through(p.t, p.url(PGUser, PGPassword, PGDatabase)+"&target_session_attrs=read-write",
		strings.Join(hosts, ","))
}

// Through returns the address of a database with another host and port, of something before it.
func Through(t testing.TB, database, address string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = address
	return u.String()
}

// AdminURL returns the address of a database for the superuser.
func (p *PG) AdminURL(database string) string {
	return p.url(pgAdmin, pgAdminPassword, database) +
		"&options=-c%20default_transaction_read_only%3Doff" // whatever SetReadOnly said
}

func (p *PG) url(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: p.Address(), Path: "/" + database,
		RawQuery: "sslmode=disable"}
	return u.String()
}

// Address returns host and port.
func (p *PG) Address() string { return pgHost + ":" + strconv.Itoa(p.server.port) }

// Socket returns the directory of its Unix socket, as libpq's host=.
func (p *PG) Socket() string { return p.server.dir.Path }

var databases atomic.Int64

// NewDatabase makes an empty database that PGUser owns and returns its address. It is dropped when t ends.
func (p *PG) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprint("test_", databases.Add(1))
	admin := p.AdminURL("postgres")
	SQL(t, admin, "CREATE DATABASE "+name+" OWNER "+PGUser)
	t.Cleanup(func() {
		if p.server.running() { // else it goes with the server
			SQL(t, admin, "DROP DATABASE "+name+" WITH (FORCE)")
		}
	})
	return p.url(PGUser, PGPassword, name)
}

// Exec runs statements as the superuser in PGDatabase and returns the rows of the last one.
func (p *PG) Exec(sql string) [][]string {
	p.t.Helper()
	return SQL(p.t, p.AdminURL(PGDatabase), sql)
}

// SQL runs statements, by the simple protocol, on a connection of their own and returns the rows of the last one as
// text, NULL as "".
func SQL(t testing.TB, address, sql string) [][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTime)
	defer cancel()
	conn, err := pgconn.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var rows [][]string
	for _, raw := range results[max(0, len(results)-1):] {
		for _, values := range raw.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// Terminate ends all connections to it but its own, and returns how many.
func (p *PG) Terminate() int {
	p.t.Helper()
	p.own("Terminate")
	rows := p.Exec("SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity " +
		"WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
	n, err := strconv.Atoi(rows[0][0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// SetReadOnly makes all transactions read-only that say nothing themselves, or ends that.
func (p *PG) SetReadOnly(on bool) {
	p.t.Helper()
	p.Configure("default_transaction_read_only", map[bool]string{true: "on", false: "off"}[on])
}

// Configure sets a parameter that needs no restart and waits until the server and all connections go by it.
func (p *PG) Configure(name, value string) {
	p.t.Helper()
	p.own("Configure")
	p.Exec("ALTER SYSTEM SET " + name + " = '" + strings.ReplaceAll(value, "'", "''") + "'")
	loaded := "SELECT pg_conf_load_time()"
	before := p.Exec(loaded)[0][0]
	p.Exec("SELECT pg_reload_conf()")
	eventually(p.t, "PostgreSQL never reloads its configuration", func() bool { return p.Exec(loaded)[0][0] != before })
}

// ServeTLS makes it offer TLS with a certificate; URL asks for none, so that a test replaces sslmode=disable.
func (p *PG) ServeTLS(cert Cert) {
	p.t.Helper()
	p.own("ServeTLS")
	for name, from := range map[string]string{"server.crt": cert.CertFile, "server.key": cert.KeyFile} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = p.server.dir.Write(filepath.Join(p.server.dir.Data(), name), bytes.NewReader(b))
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	p.Configure("ssl", "on")
}

// Start starts a server that was stopped or killed, and waits until it takes connections: it has recovered then.
func (p *PG) Start() {
	p.t.Helper()
	p.own("Start")
	if p.server.running() {
		p.t.Fatal("PostgreSQL runs already")
	}
	p.server.launch()
}

// Stop shuts it down ("fast": connections are ended first) and waits.
func (p *PG) Stop() {
	p.t.Helper()
	p.own("Stop")
	p.server.process.Signal(syscall.SIGINT)
	if err := p.server.process.Wait(stopTime); err != nil {
		p.t.Fatalf("PostgreSQL after SIGINT: %v\n%s", err, p.server.tail())
	}
}

// Restart stops and starts it.
func (p *PG) Restart() {
	p.t.Helper()
	p.Stop()
	p.Start()
}

// Kill ends all its processes as a crash would, with SIGKILL, and waits until they are gone.
func (p *PG) Kill() {
	p.t.Helper()
	p.own("Kill")
	p.server.kill()
}

// Log returns what it logged since it was started last.
func (p *PG) Log() string { return p.server.process.Log() }

// own fails a test that would do something to the server of all.
func (p *PG) own(what string) {
	p.t.Helper()
	if p.ofAll {
		p.t.Fatalf("the server of all tests has no %s: use NewDatabase, or PostgreSQL for a server of your own", what)
	}
}

// shared is the server of all tests of a test binary.
var shared sharedPG

type sharedPG struct {
	mu      sync.Mutex
	allowed bool // Main will end it
	pg      *PG
}

// SharedPostgreSQL returns a server that all tests of a test binary have in common: each uses NewDatabase. The first
// starts it. Main ends it, which the package's TestMain must call; if the binary is killed, it ends with that.
func SharedPostgreSQL(t testing.TB) *PG {
	t.Helper()
	p := shared.get(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of all tests' PostgreSQL:\n%s", p.server.tail())
		}
	})
	return p
}

func (s *sharedPG) get(t testing.TB) *PG {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.allowed {
		t.Fatal("SharedPostgreSQL needs: func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }")
	}
	if s.pg == nil {
		s.pg = newPG(t, inMemory())
	}
	p := *s.pg
	p.t, p.ofAll = t, true
	return &p
}

func (s *sharedPG) allow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = true
}

func (s *sharedPG) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pg != nil {
		s.pg.server.end()
	}
}
