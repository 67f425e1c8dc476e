package testkit

import (
	"fmt"
	"strings"
	"testing"
)

// Standby starts a replica that may be read. A synchronous one has on disk what the primary has said is committed, and
// the primary waits for it; of several the primary waits for all.
func (p *PG) Standby(t testing.TB, synchronous bool) *PG {
	t.Helper()
	p.own("Standby")
	s := newPGServer(t, "")
	t.Cleanup(s.cleanup)
	name := fmt.Sprint("standby_", s.port)
	err := s.dir.Run("", pgTool(t, "pg_basebackup"), "--pgdata="+s.dir.Data(), "--checkpoint=fast",
		"--wal-method=stream", "--write-recovery-conf", "--no-sync",
		"--dbname="+p.AdminURL("postgres")+"&application_name="+name)
	if err == nil {
		err = s.dir.Configure(s.conf())
	}
	if err == nil { // read after postgresql.conf: it waits for nobody once it is promoted
		err = s.dir.Append("postgresql.auto.conf", "synchronous_standby_names = ''\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	s.launch()
	streams := "SELECT count(*) FROM pg_stat_replication " +
		"WHERE state = 'streaming' AND application_name = '" + name + "'"
	if synchronous {
		p.standbys = append(p.standbys, name)
		all := fmt.Sprintf("%d (%s)", len(p.standbys), strings.Join(p.standbys, ", "))
		p.Configure("synchronous_standby_names", all)
		streams += " AND sync_state = 'sync'"
	}
	eventually(t, "PostgreSQL never streams to its standby", func() bool { return p.Exec(streams)[0][0] == "1" })
	return &PG{t: t, server: s}
}

// CatchUp waits until a standby has all that a primary has committed and shows it to those who read.
func (p *PG) CatchUp(primary *PG) {
	p.t.Helper()
	p.own("CatchUp")
	at := primary.Exec("SELECT pg_current_wal_flush_lsn()")[0][0]
	eventually(p.t, "PostgreSQL never replays "+at, func() bool {
		return p.Exec("SELECT pg_last_wal_replay_lsn() >= '" + at + "'")[0][0] == "t"
	})
}

// Promote makes a standby a primary, and waits until it can be written to.
func (p *PG) Promote() {
	p.t.Helper()
	p.own("Promote")
	if p.Exec("SELECT pg_promote(true, 60)")[0][0] != "t" {
		p.t.Fatalf("PostgreSQL was not promoted:\n%s", p.server.tail())
	}
}
