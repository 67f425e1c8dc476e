package testkit

import (
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
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// The accounts of a PG. The relay's is an ordinary one that owns its databases; its password must be escaped in a URL.
const (
	PGUser     = "postern"
	PGPassword = "p@ss:w/rd?"
	PGDatabase = "postern"

	pgAdmin         = "postgres"
	pgAdminPassword = "admin"
	pgHost          = "127.0.0.1"
	pgTail          = 100 // lines of its log that a failed test shows
)

// PG is a real PostgreSQL server of a test's own, on a port of 127.0.0.1 that it keeps, with passwords by
// SCRAM-SHA-256. It may be stopped, killed and started again.
type PG struct {
	t        testing.TB
	dir      *pgDirectory
	port     int
	process  *Process
	sharedBy bool // all tests: none may do to it what others would notice
}

// PostgreSQL starts a server.
func PostgreSQL(t testing.TB) *PG {
	t.Helper()
	p := newPG(t)
	t.Cleanup(p.cleanup)
	return p
}

func newPG(t testing.TB) *PG {
	t.Helper()
	p := &PG{t: t, port: FreePort(t)}
	p.dir = newPGDirectory(t)
	if err := p.dir.fill(t, p.port); err != nil {
		p.end()
		t.Fatal(err)
	}
	p.launch()
	return p
}

// URL returns the address of the database PGDatabase, for PGUser.
func (p *PG) URL() string {
	p.t.Helper()
	p.own("URL")
	return p.url(PGUser, PGPassword, PGDatabase)
}

// AdminURL returns the address of a database for the superuser.
func (p *PG) AdminURL(database string) string {
	return p.url(pgAdmin, pgAdminPassword, database) +
		"&default_transaction_read_only=off" // whatever SetReadOnly said
}

func (p *PG) url(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: p.Address(), Path: "/" + database,
		RawQuery: "sslmode=disable"}
	return u.String()
}

// Address returns host and port.
func (p *PG) Address() string { return pgHost + ":" + strconv.Itoa(p.port) }

// Socket returns the directory of its Unix socket, as libpq's host=.
func (p *PG) Socket() string { return p.dir.path }

var databases atomic.Int64

// NewDatabase makes an empty database that PGUser owns and returns its address. It is dropped when t ends.
func (p *PG) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprint("test_", databases.Add(1))
	admin := p.AdminURL("postgres")
	SQL(t, admin, "CREATE DATABASE "+name+" OWNER "+PGUser)
	t.Cleanup(func() {
		if p.running() { // else it goes with the server
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
	p.eventually("reloads its configuration", func() bool { return p.Exec(loaded)[0][0] != before })
}

func (p *PG) eventually(what string, is func() bool) {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(startTime); !is(); <-tick.C {
		if time.Now().After(end) {
			p.t.Fatalf("PostgreSQL never %s:\n%s", what, p.tail())
		}
	}
}

// Start starts a server that was stopped or killed, and waits until it takes connections: it has recovered then.
func (p *PG) Start() {
	p.t.Helper()
	p.own("Start")
	if p.running() {
		p.t.Fatal("PostgreSQL runs already")
	}
	p.launch()
}

func (p *PG) launch() {
	p.t.Helper()
	p.process = launch(p.t, p.dir.command(pgTool(p.t, "postgres"), "-D", p.dir.data()))
	p.process.WaitLog(`database system is ready to accept`)
}

// Stop shuts it down ("fast": connections are ended first) and waits.
func (p *PG) Stop() {
	p.t.Helper()
	p.own("Stop")
	p.process.Signal(syscall.SIGINT)
	if err := p.process.Wait(stopTime); err != nil {
		p.t.Fatalf("PostgreSQL after SIGINT: %v\n%s", err, p.tail())
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
	p.kill()
}

func (p *PG) kill() {
	if !p.running() {
		return
	}
	pid := p.process.Pid()
	syscall.Kill(pid, syscall.SIGSTOP) // it starts no other
	children := childrenOf(pid)
	for _, child := range children {
		syscall.Kill(child, syscall.SIGKILL)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	<-p.process.done
	for _, child := range children {
		waitGone(child)
	}
}

// Log returns what it logged since it was started last.
func (p *PG) Log() string { return p.process.Log() }

func (p *PG) tail() string {
	lines := strings.Split(p.Log(), "\n")
	return strings.Join(lines[max(0, len(lines)-pgTail):], "\n")
}

func (p *PG) running() bool {
	if p.process == nil {
		return false
	}
	select {
	case <-p.process.done:
		return false
	default:
		return true
	}
}

// own fails a test that would do something to the server of all.
func (p *PG) own(what string) {
	p.t.Helper()
	if p.sharedBy {
		p.t.Fatalf("the server of all tests has no %s: use NewDatabase, or PostgreSQL for a server of your own", what)
	}
}

func (p *PG) cleanup() {
	if p.t.Failed() && p.process != nil {
		p.t.Logf("the end of PostgreSQL's log:\n%s", p.tail())
	}
	p.end()
}

// end ends it without a checkpoint and removes its files.
func (p *PG) end() {
	if p.running() {
		p.process.cmd.Process.Signal(pgEndSignal)
		p.process.cmd.Process.Signal(syscall.SIGCONT) // a test may have stopped it
		if p.process.Wait(stopTime) != nil {
			p.kill()
		}
	}
	p.dir.remove()
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
			t.Logf("the end of the log of all tests' PostgreSQL:\n%s", p.tail())
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
		s.pg = newPG(t)
	}
	p := *s.pg
	p.t, p.sharedBy = t, true
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
		s.pg.end()
	}
}

// childrenOf returns the processes that one has started.
func childrenOf(pid int) []int {
	var children []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if fields := statOf(path); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// waitGone waits for a process that is not ours: nobody may have asked for its exit status yet.
func waitGone(pid int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if fields := statOf(fmt.Sprintf("/proc/%d/stat", pid)); len(fields) == 0 || fields[0] == "Z" || fields[0] == "X" {
			return
		}
		<-tick.C
	}
}

// statOf returns the fields of proc_pid_stat(5) from the state on, which is followed by the parent; none if there is no
// such process.
func statOf(path string) []string {
	text, _ := os.ReadFile(path)
	return strings.Fields(string(text[1+strings.LastIndexByte(string(text), ')'):]))
}

// removeSegment removes the shared memory of a server that was killed, which the next one of the same directory would
// do. That of a server which ends itself is gone, and so is its postmaster.pid.
func removeSegment(data string) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n") // pid, data, start, port, sockets, addresses, key and id of the segment
	if len(lines) < 7 {
		return
	}
	fields := strings.Fields(lines[6])
	if len(fields) < 2 {
		return
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return
	}
	var about unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &about); err == nil && about.Nattch == 0 {
		unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}
