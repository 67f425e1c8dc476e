package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// benchEvents is how many events the search benchmarks have, POSTERN_EVENTS if it is set. Five million take some ten
// minutes to make and 6 GB of TMPDIR; with POSTERN_SEARCH_DIR they are made once and kept there.
//
//	POSTERN_EVENTS=5000000 POSTERN_SEARCH_DIR=/var/tmp/search \
//		go test ./relay/store -run '^$' -bench 'Search$' -benchtime 30x -timeout 1h
func benchEvents(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("POSTERN_EVENTS"))
	if err != nil || n <= 0 {
		return 200_000
	}
	return n
}

// office returns what an office of 200 logins tells of its n-th message: about two events and a half.
func office(n int) (events []trace.Event) {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	at := eventTime.Add(time.Duration(n) * 2 * time.Second)
	newID := func(what int) string { return fmt.Sprintf("%09x%d%06x", n, what, r.IntN(1<<24)) } // by time, as ours
	id, session := newID(1), newID(0)
	who := fmt.Sprintf("%s.%d@office%d.example.com", []string{"anna", "bernd", "carla", "dirk"}[r.IntN(4)], r.IntN(50),
		r.IntN(3))
	e := trace.Event{Time: at, Kind: trace.Accepted, ID: id, Session: session, Listener: "submission",
		Client: fmt.Sprintf("192.0.%d.%d", r.IntN(4), r.IntN(250)), Login: who, From: who, Author: who,
		MessageID: fmt.Sprintf("<%x.%d@office.example.com>", r.Uint64(), n), Size: r.Int64N(1 << 20),
		Reply: mail.R(250, "2.0.0", "queued as %s", id), Detail: "queued"}
	events = append(events, e)
	for i := range 1 + r.IntN(20)/19*3 {
		e := e
		e.Time, e.Client, e.Detail = at.Add(time.Duration(i+1)*100*time.Millisecond), "", ""
		e.Upstream, e.Identity, e.Attempt, e.Took, e.Stage = "office365", "relay@example.com", 1, time.Second, "dot"
		e.To = fmt.Sprintf("%s.%d@%s", []string{"info", "post", "max", "eva"}[r.IntN(4)], r.IntN(20000),
			[]string{"gmail.com", "gmx.net", fmt.Sprintf("firm%d.example.net", r.IntN(3000))}[r.IntN(3)])
		e.Kind, e.Class = trace.Delivered, "delivered"
		e.Reply = mail.R(250, "2.6.0", "%s [InternalId=%d, Hostname=AM0PR%02d.eurprd.prod.outlook.com] Queued mail "+
			"for delivery", e.MessageID, r.Uint64(), r.IntN(100))
		if r.IntN(50) == 0 {
			e.Kind, e.Class, e.Rule = trace.Failed, "recipient-fault", "no such user"
			e.Reply = mail.R(550, "5.1.1", "The email account that you tried to reach does not exist. gsmtp-%x",
				r.Uint32())
		}
		events = append(events, e)
	}
	if r.IntN(10) == 0 {
		events = append(events, trace.Event{Time: at.Add(time.Second), Kind: trace.AuthFail, Session: newID(2),
			Listener: "submission", Client: fmt.Sprintf("203.0.%d.%d", r.IntN(100), r.IntN(250)), Login: who,
			Reply: mail.R(535, "5.7.8", "login or password not accepted"), Detail: "PLAIN: wrong password"})
	}
	return events
}

// fill inserts events in bulk until there are so many. The indexes of the table are made behind it.
func fill(b *testing.B, s *Store, total int) {
	b.Helper()
	exec := func(statements []string) {
		for _, statement := range statements {
			if err := s.write(b.Context(), func(tx *tx) error { return tx.Exec(statement) }); err != nil {
				b.Fatal(err)
			}
		}
	}
	var drop, create []string
	err := s.readers.read(b.Context(), func(conn db.Conn) error {
		const query = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'event'"
		for row, err := range conn.Rows(query) {
			if err != nil {
				return err
			}
			drop, create = append(drop, "DROP INDEX "+row.Text(0)), append(create, row.Text(1))
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	exec(drop)
	defer exec(create)
	for n, done := 0, 0; done < total; {
		var batch []trace.Event
		for len(batch) < 20_000 {
			batch = append(batch, office(n)...)
			n++
		}
		if err := s.AppendEventsNow(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		done += len(batch)
	}
}

// searched is a store with an office's events, made once.
func searched(b *testing.B) *Store {
	b.Helper()
	dir, total := os.Getenv("POSTERN_SEARCH_DIR"), benchEvents(b)
	if dir == "" {
		dir = b.TempDir()
	}
	s := open(b, Options{Dir: dir, Daemon: true, MaxEvents: 1 << 40})
	var there int64
	err := s.readers.read(b.Context(), func(conn db.Conn) error {
		c, err := readCounters(conn, s.engine.layout())
		there = c.events
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	if there < int64(total) {
		fill(b, s, total-int(there))
	}
	return s
}

// BenchmarkSearch tells the median time of one page, for words that are rare, common, and common but rarely together.
func BenchmarkSearch(b *testing.B) {
	s := searched(b)
	b.Run("index", func(b *testing.B) { indexAnew(b, s) })
	middle := office(benchEvents(b) / 6)[1]
	_, provider, _ := strings.Cut(middle.Reply.Text, "InternalId=")
	provider, _, _ = strings.Cut(provider, ",")
	for name, words := range map[string]string{
		"rare/message-id": middle.MessageID, "rare/recipient": middle.To, "rare/id": middle.ID,
		"rare/provider": provider, "rare/none": "nobody@example.org",
		"common/login": middle.Login, "common/domain": "gmail.com", "common/everything": "submission",
		"common/two": "anna gmail.com", "multi/three": middle.Login + " gmail 550",
		"multi/never": "authfail gmail.com office365", "multi/never-two": "535 gmail.com",
		"multi/rare-common": middle.To + " delivered", "all": "",
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			found, visits := 0, 0
			for b.Loop() {
				began := time.Now()
				l := searching{q: trace.Search{Words: words}}
				if err := l.in(b.Context(), s); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
				found, visits = len(l.answer.Found), maxVisits-l.budget
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(found), "rows")
			b.ReportMetric(float64(visits), "events-read")
		})
	}
}

// indexAnew makes the index, once.
func indexAnew(b *testing.B, s *Store) {
	if err := s.Reindex(b.Context()); err != nil {
		b.Fatal(err)
	}
	cpu, began := processorTime(), time.Now()
	newTestIndexer(s).all(b)
	took, spent := time.Since(began), processorTime()-cpu
	err := s.readers.read(b.Context(), func(conn db.Conn) error {
		octets, err := searchOctets(conn)
		if err != nil {
			return err
		}
		counts, err := readCounters(conn, s.engine.layout())
		if err != nil {
			return err
		}
		segments, _, err := conn.Int("SELECT count(*) FROM search_segment")
		n := float64(counts.events)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(n, "events")
		b.ReportMetric(float64(counts.history)/n, "octets/event")
		b.ReportMetric(float64(octets)/n, "octets-indexed/event")
		b.ReportMetric(float64(segments), "segments")
		b.ReportMetric(took.Seconds(), "s")
		b.ReportMetric(spent.Seconds()*1e6/n, "µs-cpu/event")
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkIndex tells what indexing costs for each event: while mail is busy, and with the merges that rest then.
func BenchmarkIndex(b *testing.B) {
	for _, busy := range []bool{true, false} {
		b.Run(fmt.Sprintf("busy=%t", busy), func(b *testing.B) { index(b, busy) })
	}
}

func index(b *testing.B, busy bool) {
	s := open(b, Options{MaxEvents: 1 << 40})
	fill(b, s, 100_000)
	x := newTestIndexer(s)
	done := 0 // pieces of work
	b.ResetTimer()
	cpu := processorTime()
	for range b.N {
		if err := s.Reindex(b.Context()); err != nil {
			b.Fatal(err)
		}
		err := s.write(b.Context(), func(tx *tx) error { // as if they had just come
			return tx.Run("UPDATE search_state SET floor = 0, low = 0, done = 0, high = 0")
		})
		if err != nil {
			b.Fatal(err)
		}
		for x.work(b, busy) {
			done++
		}
	}
	b.ReportMetric(float64((processorTime()-cpu).Nanoseconds())/1000/float64(b.N*100_000), "µs-cpu/event")
	b.ReportMetric(float64(done)/float64(b.N), "steps")
}
