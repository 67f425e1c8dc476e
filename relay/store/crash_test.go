package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// crashContent is what the child stores under an ID, so that the parent can tell whether it is complete.
func crashContent(id string) []byte {
	seed := sha256.Sum256([]byte(id))
	size := 1000 + int(seed[0])*40
	if seed[1] < 16 {
		size = 300_000 // more than one chunk
	}
	b := make([]byte, size)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// childSubmit adds and finishes messages until it is killed, and says what it was told: "+ID" after Add, "?ID"
// before Finish, "-ID" after it.
func childSubmit(dir string) error {
	s, err := openNoted(context.Background(), Options{Dir: dir, Daemon: true})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := s.ReleaseLeases(ctx, "node-1"); err != nil {
		return err
	}
	errs := make(chan error, 8)
	for w := range 8 {
		go func() {
			for {
				n := small("")
				n.Message.LeaseOwner, n.Message.LeaseUntil = "node-1", time.Now().Add(time.Hour)
				id := n.Message.ID
				n.Content = mail.BytesContent(crashContent(id))
				if err := s.Add(ctx, n); err != nil {
					errs <- err
					return
				}
				fmt.Print("+" + id + "\n")
				if w%2 == 0 {
					fmt.Print("?" + id + "\n")
					if err := s.Finish(ctx, attempt(1, id), "node-1", queue.Outcome{Remove: true}); err != nil {
						errs <- err
						return
					}
					fmt.Print("-" + id + "\n")
				}
				s.AppendEvents(ctx, []trace.Event{{Kind: trace.Accepted, ID: id}})
			}
		}()
	}
	return <-errs
}

// TestKill kills a process that takes mail, at any moment, again and again: everything that it said to
// have taken is there and complete, everything that it said to have finished is gone, and what it
// never mentioned is whole or not there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	added, asked, finished := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for round := range 5 {
		var out bytes.Buffer
		cmd := child(t, "submit", dir, 0)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(pipe)
		for n := rand.IntN(300); n >= 0; n-- { // a random moment, counted in what it did
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("round %d: the child ended by itself: %s", round, complaint.String())
			}
			out.WriteString(line)
		}
		cmd.Process.Kill()
		io.Copy(&out, lines)
		cmd.Wait()
		for line := range strings.SplitSeq(out.String(), "\n") {
			if line == "" {
				continue
			}
			switch id := line[1:]; line[0] {
			case '+':
				added[id] = true
			case '?':
				asked[id] = true
			case '-':
				finished[id] = true
			}
		}
		checkAfterKill(t, dir, added, asked, finished)
	}
	if len(added) == 0 || len(finished) == 0 {
		t.Fatalf("%d messages were added and %d finished: the test tests nothing", len(added), len(finished))
	}
}

func checkAfterKill(t *testing.T, dir string, added, asked, finished map[string]bool) {
	t.Helper()
	s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if problems, err := s.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Fatalf("damaged: %q, %v", problems, err)
	}
	list, err := s.List(t.Context(), queue.Filter{Limit: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	there, size := map[string]bool{}, int64(0)
	for _, m := range list {
		there[m.ID] = true
		size += m.Size
		if finished[m.ID] {
			t.Errorf("%s was finished and is still there", m.ID)
		}
		c, err := s.Content(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, crashContent(m.ID)) {
			t.Errorf("%s is not what was added: %v", m.ID, err)
		}
	}
	for id := range added {
		if !there[id] && !asked[id] {
			t.Errorf("%s was accepted and is lost", id)
		}
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != int64(len(list)) || st.Bytes != size {
		t.Errorf("counted %+v, there are %d messages with %d octets: %v", st, len(list), size, err)
	}
}

// childAct is the command line at work beside the daemon.
func childAct(dir string) error {
	ctx := context.Background()
	s, err := openNoted(ctx, Options{Dir: dir})
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range 20 {
		if _, err := s.Hold(ctx, queue.Filter{Login: "alice"}, "by the child"); err != nil {
			return err
		}
		if _, err := s.Release(ctx, queue.Filter{}, time.Now()); err != nil {
			return err
		}
		if err := s.Add(ctx, small("")); err != nil {
			return err
		}
		if _, err := s.Secret(ctx, fmt.Sprint("secret", i), 16); err != nil {
			return err
		}
	}
	return nil
}

// TestSeveralProcesses: three command lines work on the file that the daemon takes mail in.
func TestSeveralProcesses(t *testing.T) {
	s := open(t, Options{Daemon: true})
	before := generation(t, s, TopicQueue)
	var group sync.WaitGroup
	for range 3 {
		cmd := child(t, "act", s.opts.Dir, 0)
		group.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	load(t, s, 4, 4<<10, 300)
	group.Wait()
	if after := generation(t, s, TopicQueue); after < before+60 {
		t.Errorf("the generation went from %d to %d", before, after)
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Messages != 60 || st.Held != 0 {
		t.Errorf("%+v, want 60 messages: %v", st, err)
	}
}

// TestManyFirstOpens: several processes find no store and make one, the same one.
func TestManyFirstOpens(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	for range 4 {
		cmd := child(t, "act", dir, 0)
		group.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	group.Wait()
	s := open(t, Options{Dir: dir})
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 80 {
		t.Errorf("%+v, want 80 messages: %v", st, err)
	}
}

func TestSecondDaemon(t *testing.T) {
	s := open(t, Options{Daemon: true})
	if _, err := Open(t.Context(), at(t, Options{Dir: s.opts.Dir, Daemon: true})); !errors.Is(err, ErrLocked) {
		t.Errorf("in the same process: %v", err)
	}
	if out, err := child(t, "open", s.opts.Dir, 0).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "another postern daemon") {
		t.Errorf("in another process: %v: %s", err, out)
	}
	beside, err := Open(t.Context(), at(t, Options{Dir: s.opts.Dir}))
	if err != nil {
		t.Fatalf("the command line: %v", err)
	}
	beside.Close()
}
