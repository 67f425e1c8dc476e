package testkit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Bouncer is a PgBouncer before a PG, in transaction mode: whatever belongs to a session does not work through it.
type Bouncer struct {
	t       testing.TB
	dir     *pgDirectory
	port    int
	process *Process
}

const bouncerConf = `[databases]
* = host=%[1]s port=%[2]d
[pgbouncer]
listen_addr = %[1]s
listen_port = %[3]d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[4]s
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
`

// PgBouncer starts one. It may be killed and started again.
func PgBouncer(t testing.TB, pg *PG) *Bouncer {
	t.Helper()
	b := &Bouncer{t: t, port: FreePort(t)}
	bouncerPath(t)
	b.dir = newPGDirectory(t, "") // it refuses to run as root, too
	t.Cleanup(b.cleanup)
	users := filepath.Join(b.dir.Path, "users")
	conf := fmt.Sprintf(bouncerConf, pgHost, pg.server.port, b.port, users)
	known := `"` + PGUser + `" "` + PGPassword + "\"\n"
	err := errors.Join(b.dir.Write(b.conf(), strings.NewReader(conf)), b.dir.Write(users, strings.NewReader(known)))
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	return b
}

func bouncerPath(t testing.TB) string {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	return Need(t, "pgbouncer")
}

func (b *Bouncer) conf() string { return filepath.Join(b.dir.Path, "pgbouncer.ini") }

// URL returns the address of a database of its server through it.
func (b *Bouncer) URL(database string) string {
	b.t.Helper()
	return Through(b.t, database, fmt.Sprint(pgHost, ":", b.port))
}

// Start starts one that was killed.
func (b *Bouncer) Start() {
	b.t.Helper()
	cmd := b.dir.Command(bouncerPath(b.t), b.conf())
	b.process = launch(b.t, syscall.SIGKILL, cmd)
	b.process.WaitLog(`process up`)
}

// Kill ends it at once, and all connections through it.
func (b *Bouncer) Kill() { b.process.Kill() }

func (b *Bouncer) cleanup() {
	if b.process != nil {
		b.process.cleanup()
	}
	b.dir.remove()
}
