package store

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/seal"
)

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// TestFailedSync: after a commit whose sync failed nothing is written any more, not even tried; what was
// committed before stays readable, and a restart goes on.
func TestFailedSync(t *testing.T) {
	fileOnly(t)
	dir := t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), small("before")); err != nil {
		t.Fatal(err)
	}
	syncs := 0
	if err := ofFile(t, s).conn.OnSync(func() error { syncs++; return errors.New("broken disk") }); err != nil {
		t.Fatal(err)
	}
	release := stall(t, s)
	var group sync.WaitGroup
	for i := range 5 {
		group.Go(func() {
			if err := s.Add(t.Context(), small(fmt.Sprint("during", i))); !errors.Is(err, ErrFailed) {
				t.Errorf("Add while the disk is broken: %v", err)
			}
		})
	}
	waitFor(t, s, 5, 0)
	release()
	group.Wait()
	if syncs != 1 {
		t.Errorf("%d syncs were tried, want one", syncs)
	}
	if err := s.Add(t.Context(), small("after")); !errors.Is(err, ErrFailed) {
		t.Errorf("Add after the failure: %v", err)
	}
	if err := s.Writable(); !errors.Is(err, ErrFailed) {
		t.Errorf("Writable after the failure: %v", err)
	}
	if _, err := s.Get(t.Context(), "before"); err != nil {
		t.Errorf("reading after the failure: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if syncs != 1 {
		t.Errorf("%d syncs were tried until Close, want one", syncs)
	}
	s = open(t, Options{Dir: dir, Daemon: true})
	if _, err := s.Get(t.Context(), "before"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := s.Add(t.Context(), small("after")); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestFailedCheckpoint(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{})
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Fatal(err)
	}
	if err := ofFile(t, s).conn.OnSync(func() error { return errors.New("broken disk") }); err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context(), func(*tx) error { return nil }); err != nil { // the writer is idle behind it
		t.Fatal(err)
	}
	ofFile(t, s).checkpoint(ofFile(t, s).conn)
	if err := s.writer.failure(); !errors.Is(err, ErrFailed) {
		t.Errorf("after a failed checkpoint: %v", err)
	}
}

// TestFullFile plays a full disk by the engine's own limit, which fails in the middle of a transaction.
func TestFullFile(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{})
	pages, _, err := ofFile(t, s).conn.Int("PRAGMA page_count")
	if err != nil {
		t.Fatal(err)
	}
	limit := func(pages int64) {
		release := stall(t, s)
		defer release()
		if err := ofFile(t, s).conn.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Error(err)
		}
	}
	limit(pages + 40)
	finishAll(t, s, fillUp(t, s))
	limit(1 << 30)
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Errorf("Add when there is room again: %v", err)
	}
}

// fillUp adds messages until the store is full and returns their IDs.
func fillUp(t *testing.T, s *Store) (stored []string) {
	t.Helper()
	big := bytes.Repeat([]byte("x"), 100_000)
	for i := 0; ; i++ {
		n := small(fmt.Sprint("big", i))
		n.Message.LeaseOwner, n.Message.LeaseUntil = "node-1", time.Now().Add(time.Hour)
		n.Content = mail.BytesContent(big)
		err := s.Add(t.Context(), n)
		if err == nil && i < 10_000 {
			stored = append(stored, n.Message.ID)
			continue
		}
		if !errors.Is(err, queue.ErrFull) {
			t.Fatalf("message %d: %v", i, err)
		}
		break
	}
	if len(stored) == 0 {
		t.Fatal("not even one message was stored")
	}
	if err := s.writer.failure(); err != nil {
		t.Fatalf("a full disk is no failure: %v", err)
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Messages != int64(len(stored)) || st.Bytes != int64(len(stored)*len(big)) {
		t.Fatalf("%+v after %d messages: %v", st, len(stored), err)
	}
	return stored
}

// finishAll finishes messages: a full disk lets go of mail.
func finishAll(t *testing.T, s *Store, ids []string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Finish(t.Context(), attempt(1, id), "node-1", queue.Outcome{Remove: true}); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 0 || st.Bytes != 0 {
		t.Errorf("%+v when all is finished: %v", st, err)
	}
}

// TestFullDisk fills a real file system.
func TestFullDisk(t *testing.T) {
	fileOnly(t)
	testkit.NeedRoot(t)
	dir := t.TempDir()
	unmount, err := mountSmall(dir)
	if err != nil {
		testkit.Skipf(t, "cannot mount a file system: %v", err)
	}
	defer unmount()
	s, err := Open(t.Context(), at(t, Options{Dir: filepath.Join(dir, "data"), MinFree: -1, Daemon: true}))
	if err != nil {
		t.Fatal(err)
	}
	stored := fillUp(t, s)
	// Somebody else takes the last block.
	junk, err := os.Create(filepath.Join(dir, "junk"))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(junk, zeros{})
	junk.Close()
	finishAll(t, s, stored)
	if err := s.Add(t.Context(), small("")); err != nil {
		t.Errorf("Add into the room that finished mail left: %v", err)
	}
	problems, err := s.Check(t.Context())
	if err != nil || len(problems) > 0 {
		t.Errorf("after a full disk: %q, %v", problems, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = Open(t.Context(), at(t, Options{Dir: filepath.Join(dir, "data"), MinFree: 1 << 30, Daemon: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Writable(); !errors.Is(err, queue.ErrFull) {
		t.Errorf("Writable below the floor: %v", err)
	}
	if err := s.Add(t.Context(), small("")); !errors.Is(err, queue.ErrFull) {
		t.Errorf("Add below the floor: %v", err)
	}
}

// TestStartWithoutRoom: after a crash the store opens on a disk, or under a quota, that has no room for what is in the
// log: mail that leaves makes some. A limit on the size of files stands for it.
func TestStartWithoutRoom(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{Daemon: true})
	info, err := os.Stat(ofFile(t, s).path)
	if err != nil {
		t.Fatal(err)
	}
	n := small("m1")
	n.Content = mail.BytesContent(bytes.Repeat([]byte("x"), 1<<20))
	if err := s.Add(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "data") // as a kill leaves it
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{FileName, FileName + "-wal", seal.KeyFile} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(ofFile(t, s).path), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(left, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := child(t, "limited", left, 0)
	cmd.Env = append(cmd.Env, fmt.Sprintf("POSTERN_STORE_TEST_LIMIT=%d", info.Size()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func childLimited(dir string) error {
	most, err := strconv.ParseUint(os.Getenv("POSTERN_STORE_TEST_LIMIT"), 10, 63)
	if err != nil {
		return err
	}
	if err := limitFiles(most); err != nil {
		return err
	}
	s, err := openNoted(context.Background(), Options{Dir: dir, Daemon: true})
	if err != nil {
		return err
	}
	if _, err := s.Get(context.Background(), "m1"); err != nil {
		return err
	}
	return s.Close()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestMaxBytes(t *testing.T) {
	n := small("")
	s := open(t, Options{MaxBytes: 2 * n.Content.Size()})
	if err := s.Writable(); err != nil {
		t.Fatal(err)
	}
	n.Message.LeaseOwner, n.Message.LeaseUntil = "node-1", time.Now().Add(time.Hour)
	for _, n := range []queue.NewMessage{n, small("")} {
		if err := s.Add(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(t.Context(), small("")); !errors.Is(err, queue.ErrFull) {
		t.Errorf("Add over max_bytes: %v", err)
	}
	if err := s.Writable(); !errors.Is(err, queue.ErrFull) {
		t.Errorf("Writable over max_bytes: %v", err)
	}
	// A report replaces the message that it is about, whatever the limit says.
	if err := s.Finish(t.Context(), attempt(1, n.Message.ID), "node-1",
		queue.Outcome{Remove: true, Reports: []queue.NewMessage{small(""), small("")}}); err != nil {
		t.Error(err)
	}
}

// The cases below start the test's own binary again; what the child does is chosen by a variable.
const childVariable = "POSTERN_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		what, dir, _ := strings.Cut(child, ":")
		if err := children[what](dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if !slices.ContainsFunc(os.Args, func(a string) bool { return strings.Contains(a, "rapid.checks") }) {
		flag.Set("rapid.checks", "25") // each step of the model is a commit with its sync
	}
	os.Exit(testkit.Main(m))
}

var children = map[string]func(dir string) error{
	"submit":  childSubmit,
	"open":    childOpen,
	"limited": childLimited,
	"act":     childAct,
	"index":   childIndex,
	"migrate": childMigrate,
}

// child prepares a process that does what; uid 0 is our own.
func child(t *testing.T, what, dir string, uid uint32) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	if uid != 0 {
		// The test's binary is where only its owner may look.
		copied := filepath.Join(os.TempDir(), fmt.Sprintf("postern-store-%d.test", os.Getpid()))
		b, err := os.ReadFile(exe)
		if err == nil {
			err = os.WriteFile(copied, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(copied) })
		cmd = exec.Command(copied)
		runAs(cmd, uid)
	}
	cmd.Env = append(os.Environ(), childVariable+"="+what+":"+dir)
	at(t, Options{Dir: dir})
	return cmd
}

func childOpen(dir string) error {
	s, err := openNoted(context.Background(), Options{Dir: dir, Daemon: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// Check reads everything and returns what is wrong with it, nothing if all is well. It takes as long as
// reading the whole file takes.
func (s *Store) Check(ctx context.Context) ([]string, error) {
	f, ok := s.engine.(*file)
	if !ok { // a server looks after itself
		return nil, nil
	}
	conn, err := openConn(f.path)
	if err != nil {
		return nil, explain(f.path, err)
	}
	defer conn.Close()
	defer interruptOn(ctx, conn)()
	problems, err := list(conn, text, "PRAGMA integrity_check(100)")
	if err != nil {
		return problems, fmt.Errorf("check %s: %w", f.path, readError(ctx, err))
	}
	return slices.DeleteFunc(problems, func(text string) bool { return text == "ok" }), nil
}
