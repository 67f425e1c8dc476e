package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// childIndex takes mail and tells the trace of it while an indexer works without a rest, until it is killed. It says
// "+ID" of each message that is stored with its events, and "i" of each piece of work of the indexer.
func childIndex(dir string) error {
	ctx := context.Background()
	s, err := openNoted(ctx, Options{Dir: dir, Daemon: true})
	if err != nil {
		return err
	}
	errs := make(chan error, 2)
	go func() {
		x := s.NewIndexer()
		for now := time.Now().Add(time.Hour); ; now = now.Add(time.Hour) { // nothing is too new
			did, err := x.step(ctx, now, false)
			switch {
			case err != nil:
				errs <- err
				return
			case did:
				fmt.Print("i\n")
			}
		}
	}()
	go func() {
		for n := 0; ; n++ {
			m := small("")
			id := m.Message.ID
			m.Content = mail.BytesContent(crashContent(id))
			at := time.Now()
			if n%7 == 0 {
				at = at.Add(-time.Minute) // behind what is indexed already
			}
			err := s.Add(ctx, m)
			if err == nil {
				err = s.AppendEventsNow(ctx, []trace.Event{{Time: at, Kind: trace.Accepted, ID: id, Detail: "killed"},
					{Time: at.Add(1), Kind: trace.Deferred, ID: id, To: "x" + id + "@example.net", Detail: "killed"}})
			}
			if err == nil && n%50 == 49 {
				_, err = s.Forget(ctx, "x"+id+"@example.net", "the child")
			}
			if err != nil {
				errs <- err
				return
			}
			fmt.Print("+" + id + "\n")
		}
	}()
	return <-errs
}

// TestKillWhileIndexing kills a process in the middle of indexing, again and again. What was told is found, once,
// before the next indexer has done anything and after it has done everything; mail is taken at once, and none is lost.
func TestKillWhileIndexing(t *testing.T) {
	dir := t.TempDir()
	added := map[string]bool{}
	for round := range 6 {
		out, pieces := killed(t, dir, 10+rand.IntN(60)) // counted in pieces of the indexer's work
		news := 0
		for line := range strings.SplitSeq(out, "\n") {
			if id, ok := strings.CutPrefix(line, "+"); ok {
				added[id] = true
				news++
			}
		}
		if news == 0 {
			t.Errorf("round %d: no mail was taken while %d pieces of work were done", round, pieces)
		}
		checkAfterKill(t, dir, added, nil, nil)
		s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
		if err != nil {
			t.Fatal(err)
		}
		m := small("")
		m.Content = mail.BytesContent(crashContent(m.Message.ID))
		if err := s.Add(t.Context(), m); err != nil {
			t.Fatal("mail waits for the index: ", err)
		}
		added[m.Message.ID] = true
		appendEvents(t, s, trace.Event{Time: time.Now(), Kind: trace.Accepted, ID: m.Message.ID, Detail: "killed"})
		found := everyOnce(t, s, added)
		newTestIndexer(s).all(t)
		if again := everyOnce(t, s, added); again != found {
			t.Errorf("round %d: %d rows before and %d after the index was finished", round, found, again)
		}
		wholeIndex(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed runs the child and kills it after so many pieces of the indexer's work. It returns what the child said.
func killed(t *testing.T, dir string, after int) (said string, pieces int) {
	t.Helper()
	cmd := child(t, "index", dir, 0)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint, out bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(pipe)
	for pieces < after {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the child ended by itself: %s", complaint.String())
		}
		if out.WriteString(line); line == "i\n" {
			pieces++
		}
	}
	cmd.Process.Kill()
	io.Copy(&out, lines)
	cmd.Wait()
	return out.String(), pieces
}

// everyOnce searches for a word that all messages have: each that was added is found, and none twice. It returns how
// many there are.
func everyOnce(t *testing.T, s *Store, added map[string]bool) int {
	t.Helper()
	seen := map[string]bool{}
	for _, f := range findAll(t, s, trace.Search{Words: "killed", Limit: trace.MaxPage}) {
		if seen[f.ID] {
			t.Errorf("%s is found twice", f.ID)
		}
		seen[f.ID] = true
	}
	n := 0
	for id := range added {
		if !seen[id] {
			t.Errorf("%s is not found", id)
		}
		if n++; n > 20 { // these alone too, by their own words
			continue
		}
		if got := findAll(t, s, trace.Search{Words: id + " killed"}); len(got) != 1 {
			t.Errorf("%s by its id: %d rows", id, len(got))
		}
	}
	return len(seen)
}

// wholeIndex checks that every event is in one segment, and nothing else is there.
func wholeIndex(t *testing.T, s *Store) {
	t.Helper()
	if left := rowsOfNoSegment(t, s); left != 0 {
		t.Errorf("%d rows of no segment", left)
	}
	state := indexed(t, s)
	err := s.readers.read(t.Context(), func(conn db.Conn) error {
		segments, err := readSegments(conn)
		if err != nil {
			return err
		}
		in := map[int64]int{}
		for _, one := range segments {
			docs, err := readDocs(conn, one)
			if err != nil {
				return err
			}
			for _, n := range docs {
				in[n]++
			}
		}
		numbers, err := list(conn, number, "SELECT n FROM event WHERE n < ? ORDER BY n", state.done)
		for _, n := range numbers {
			if in[n] != 1 {
				t.Errorf("event %d is in %d segments", n, in[n])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := s.Search(t.Context(), trace.Search{Words: "killed"}); err != nil || a.Partial {
		t.Errorf("%+v, %v", a.Partial, err)
	}
	if _, err := s.List(t.Context(), queue.Filter{Limit: 1}); err != nil {
		t.Error(err)
	}
}
