package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postern/relay/finding"
	relaystore "postern/relay/store"
)

// serverClock is how far the clocks of this machine and of the store's server may differ. Times of the queue are the
// server's; those in the trace are each machine's own.
const serverClock = 2 * time.Second

// server looks at a store at PostgreSQL.
func (x storeExam) server(ctx context.Context, path string, s *relaystore.Store,
	h relaystore.Health) []finding.Finding {
	f, err := s.Server(ctx)
	if err != nil {
		return []finding.Finding{serverSilent(path, "The store cannot be read: "+sentence(said(err.Error())))}
	}
	list := append(x.serverFindings(path, f), x.history(path, h)...)
	if len(list) == 0 {
		list = append(list, fine(codeStoreOK, path, "PostgreSQL %d.%d answers, and the database has %s.",
			f.Version/10000, f.Version%10000, octets(f.Size)))
	}
	return list
}

// serverSilent is the finding that the store cannot be opened, or read.
func serverSilent(path, what string) finding.Finding {
	return found(codeStoreUnreadable, finding.Danger, path, what,
		"It has the mail that waits, the accounts and the keys. Without it no mail is taken.",
		"The text says what to do. See whether the server answers at all: psql '"+path+"'")
}

func (x storeExam) serverFindings(path string, f *relaystore.ServerFacts) (list []finding.Finding) {
	add := func(code string, w finding.Weight, what, why, fix string) {
		list = append(list, found(code, w, path, what, why, fix))
	}
	if !f.Fsync {
		add(codeServerFsync, finding.Danger, "The server of the store runs with fsync = off.",
			"When its machine fails, mail that was accepted is lost, and the database may be damaged.",
			"Set fsync = on in postgresql.conf, and reload the server.")
	}
	if f.Copies > 0 && f.Standbys == "" {
		add(codeServerStandby, finding.Advice,
			"The server of the store has standbys and waits for none: synchronous_standby_names is empty.",
			"A standby that takes over may lack the last mail that was accepted.",
			"If none may be lost, name the standbys: ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
	}
	if !f.Encrypted && !f.Pooled && x.c.Store.URL.Elsewhere() {
		add(codeServerClear, finding.Fault, "The connection to the server of the store is not encrypted.",
			"Anybody on the way can read and change mail, accounts and keys.",
			"Turn on TLS at the server, and write sslmode=verify-full in [store] url of "+x.Path)
	}
	if f.Ahead.Abs() > serverClock {
		what := "This machine's clock is %s behind that of the store's server."
		if f.Ahead < 0 {
			what = "This machine's clock is %s ahead of that of the store's server."
		}
		add(codeServerClock, finding.Fault, fmt.Sprintf(what, f.Ahead.Abs().Round(time.Second)),
			"The queue goes by the server's clock, and the trace by this machine's: what happened seems out of order.",
			"Let the network keep both clocks: timedatectl set-ntp true")
	}
	if lacks := lackingRights(f); lacks != "" {
		add(codeServerRights, finding.Danger, "The user of the store may not do all that is needed: "+lacks,
			"Contents of mail go into a table of their own for each hour: from the next one on, no mail is taken.",
			"Make the user the owner, as administrator of the server: ALTER DATABASE … OWNER TO, ALTER SCHEMA … OWNER "+
				"TO, ALTER TABLE … OWNER TO")
	}
	if f.Superuser {
		add(codeServerSuperuser, finding.Advice, "The user of the store is a superuser of the server.",
			"Whoever gets its password has all databases there, and the machine.",
			"Make a user that owns the one database, and write it in [store] url of "+x.Path)
	}
	return list
}

func lackingRights(f *relaystore.ServerFacts) string {
	var lacks []string
	if !f.MayCreate {
		lacks = append(lacks, "CREATE (schema)")
	}
	if !f.Owner {
		lacks = append(lacks, "OWNER (tables)")
	}
	return strings.Join(lacks, ", ")
}
