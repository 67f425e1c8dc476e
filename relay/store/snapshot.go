package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"postern/internal/disk"
	"postern/relay/queue"
	"postern/relay/seal"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/sqlite"
)

// ErrAtServer: what was asked for is of a store in a file alone.
var ErrAtServer = errors.New("the store is at PostgreSQL")

// Snapshot is a copy of the store as it was at one moment.
type Snapshot struct {
	Schema   int    // version of its schema
	Messages int64  // that are queued in it
	Octets   int64  // of their contents
	LeftOut  int64  // messages that were queued, and are not in it
	Answers  []byte // lines of the journal: what upstreams answered and the copy has not
	Proof    []byte // opens with the key that seals what is secret in it: see Proves
}

// SnapshotOptions say what is copied.
type SnapshotOptions struct {
	WithoutMail bool // leave queued messages and their contents out
}

// proofLabel is what a Proof is sealed as.
const proofLabel = "postern backup"

// Proves returns nil if a key is the one that a Proof was sealed with.
func Proves(s *seal.Sealer, proof []byte) error {
	_, err := s.Open(proofLabel, proof)
	return err
}

// copyStep is how many pages are copied between two looks at the context: 8 MiB.
const copyStep = 512

// syncSteps is after how many of them the copy is synced, 64 MiB: one sync of it all would hold up those of commits.
const syncSteps = 8

// The directory in data_dir where a backup has its copy, which is in clear, and the lock that is held meanwhile.
const (
	copying  = "backup.part"
	copyLock = "backup.lock"
)

// CopyPlace makes a directory in data_dir for a copy of the store, for one process at a time. What one has left there
// that was killed goes, now or at the start of the daemon. done removes it.
func (s *Store) CopyPlace() (dir string, done func() error, err error) {
	unlock, err := clearCopy(s.opts.Dir)
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(s.opts.Dir, copying)
	in, err := os.OpenRoot(s.opts.Dir)
	if err == nil {
		if err = in.Mkdir(copying, 0o700); err == nil {
			err = ownedAs(s.opts.Dir, in, copying) // who has to be able to remove it
		}
		err = errors.Join(err, in.Close())
	}
	if err != nil {
		unlock()
		return "", nil, err
	}
	return dir, func() error { defer unlock(); return os.RemoveAll(dir) }, nil
}

// clearCopy removes what a backup has left that was killed, and keeps its lock.
func clearCopy(dir string) (unlock func(), err error) {
	unlock, err = lockFile(filepath.Join(dir, copyLock))
	if errors.Is(err, ErrLocked) {
		return nil, errors.New("another backup is just being made: wait for it")
	}
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(dir, copying)); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// forgetCopy is clearCopy for the start of the daemon.
func (s *Store) forgetCopy() {
	if _, err := os.Lstat(filepath.Join(s.opts.Dir, copying)); errors.Is(err, fs.ErrNotExist) {
		return
	}
	unlock, err := clearCopy(s.opts.Dir)
	if err != nil {
		s.log.Warn("the copy of a backup stays", "dir", filepath.Join(s.opts.Dir, copying), "err", err)
		return
	}
	unlock()
}

// Snapshot copies the store into a new file, beside all that write to it: they are not held up, and the log gets longer
// meanwhile by what they write. The copy is read back as a whole; if it is damaged, so is the store, and that is an
// error. It needs no log and no key beside it, and is synced.
//
// The order matters. An answer goes into the journal before its outcome is committed, and leaves the journal after. So
// the journal is read before the state to copy is chosen, and again after: what the copy has not is there at least
// once, unless a file was emptied in between. Then all of it is done again.
func (s *Store) Snapshot(ctx context.Context, path string, o SnapshotOptions) (c Snapshot, err error) {
	e, ok := s.engine.(*file)
	if !ok {
		return c, ErrAtServer
	}
	notes, err := e.copyTo(ctx, path)
	if err == nil && o.WithoutMail {
		c.LeftOut, err = leaveMailOut(ctx, path)
	}
	if err == nil {
		err = finishCopy(ctx, path, notes, &c)
	}
	if err == nil {
		err = syncFile(path)
	}
	c.Proof = s.sealer.Seal(proofLabel, nil)
	return c, wrap(err, "copy %s", e.path)
}

// syncFile syncs one that nobody has open.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeFile makes an empty file for us alone.
func makeFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// copyTo copies a state of the file, and returns what the journal has about it.
func (f *file) copyTo(ctx context.Context, path string) ([]queue.Note, error) {
	made, err := makeFile(path)
	if err != nil {
		return nil, err
	}
	defer made.Close()
	from, err := openConn(f.path)
	if err != nil {
		return nil, explain(f.path, err)
	}
	defer from.Close()
	notes, err := choose(from, filepath.Dir(f.path))
	if err != nil {
		return nil, err
	}
	to, err := openConn(path)
	if err != nil {
		return nil, explain(path, err)
	}
	// Nobody sees the copy before it is whole and synced.
	if err = to.Exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF"); err == nil {
		steps := 0
		err = sqlite.Copy(to, from, copyStep, func() error {
			if steps++; steps%syncSteps == 0 {
				return errors.Join(ctx.Err(), made.Sync())
			}
			return ctx.Err()
		})
	}
	return notes, errors.Join(err, to.Close())
}

// choose begins the read transaction whose state is copied, and returns the notes that may not be in it.
func choose(conn db.Conn, dir string) (notes []queue.Note, err error) {
	before, err := journalText(dir)
	if err != nil {
		return nil, err
	}
	for range 10 {
		if err := conn.Run("BEGIN"); err != nil {
			return nil, err
		}
		if _, _, err := conn.Int("SELECT count(*) FROM counter"); err != nil { // only a read chooses
			return nil, err
		}
		after, err := journalText(dir)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(after[0], before[0]) && bytes.HasPrefix(after[1], before[1]) {
			return append(decodeNotes(after[0]), decodeNotes(after[1])...), nil
		}
		before = after
		if err := conn.Run("ROLLBACK"); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the journal of answers changes too fast to be read: try again in a moment")
}

// journalText is what the files of the journal have; a file that is not there has nothing.
func journalText(dir string) (text [2][]byte, err error) {
	for i := range text {
		text[i], err = os.ReadFile(journalPath(dir, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return text, fmt.Errorf("read the journal of answers: %w", err)
		}
	}
	return text, nil
}

// leaveMailOut takes queued mail and answers of the API about it out of a copy, and returns how many messages. The
// smaller file is written beside it, as temporary tables are in memory.
func leaveMailOut(ctx context.Context, path string) (messages int64, err error) {
	conn, err := openConn(path)
	if err != nil {
		return 0, explain(path, err)
	}
	small := path + ".small"
	stop := interruptOn(ctx, conn)
	if messages, _, err = conn.Int("SELECT count(*) FROM message"); err == nil {
		err = conn.Exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA secure_delete = OFF; " +
			"BEGIN; DELETE FROM message; DELETE FROM chunk; DELETE FROM api_answer; " +
			"UPDATE counter SET messages = 0, held = 0, bytes = 0; COMMIT")
	}
	if err == nil {
		var f *os.File
		if f, err = makeFile(small); err == nil {
			err = errors.Join(f.Close(), conn.Run("VACUUM INTO ?", small))
		}
	}
	stop()
	if err := errors.Join(err, conn.Close()); err != nil {
		return 0, readError(ctx, err)
	}
	return messages, disk.Rename(small, path)
}

// finishCopy makes the copy a file of its own, reads it as a whole, and counts what is in it.
func finishCopy(ctx context.Context, path string, notes []queue.Note, c *Snapshot) (err error) {
	conn, err := openConn(path)
	if err != nil {
		return explain(path, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	defer interruptOn(ctx, conn)()
	// One that names a log in its header would need it beside itself.
	if err := conn.Exec("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF"); err != nil {
		return err
	}
	if err := examineCopy(conn); err != nil {
		return readError(ctx, err)
	}
	return describe(conn, notes, c)
}

// describe counts what is in a copy.
func describe(conn db.Conn, notes []queue.Note, c *Snapshot) error {
	counts, err := readCounters(conn, fileLayout)
	if err != nil {
		return err
	}
	c.Messages, c.Octets = counts.messages, counts.bytes
	found, err := originOf(conn, applicationID)
	if err != nil {
		return err
	}
	c.Schema = found.schema
	c.Answers, err = openAnswers(conn, notes)
	return err
}

// examineCopy reads all of a file.
func examineCopy(conn db.Conn) error {
	found, err := list(conn, text, "PRAGMA integrity_check(5)")
	if err != nil {
		return err
	}
	if len(found) != 1 || found[0] != "ok" {
		return fmt.Errorf("it is damaged: %s", strings.Join(found, "; "))
	}
	return nil
}

// openAnswers are the lines of notes about messages that a copy has.
func openAnswers(conn db.Conn, notes []queue.Note) (lines []byte, err error) {
	for _, n := range notes {
		_, there, err := conn.Int("SELECT 1 FROM message WHERE id = ?", n.ID)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		line, err := encodeNote(n)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line...)
	}
	return lines, nil
}
