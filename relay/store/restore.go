package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/internal/disk"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/seal"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// restoring is the directory in data_dir that a restore collects everything in before any of it gets its place. While
// it is there nothing else uses data_dir: what is in there is not whole.
const restoring = "restoring"

// placedMark is a file in restoring from before the first thing gets its place: an empty directory would be taken for a
// new one then, and is left refused.
const placedMark = "placed"

// ErrRestoring: a restore was broken off, or is running.
var ErrRestoring = errors.New("a restore into it has not ended")

// notRestoring refuses a data directory that a restore has not left yet.
func notRestoring(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, restoring))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, fmt.Errorf("data_dir %s: %w: wait for it, or run the same postern restore again, which "+
		"begins anew", dir, ErrRestoring))
}

// Restoration brings files into an empty data directory: all of them, or none that anybody would use.
type Restoration struct {
	dir string
	// Root may restore while the owner of dir renames what is in it, and puts links there. So all is done within these
	// two, or by the path of held.
	data   *os.Root // of dir
	in     *os.Root // of restoring, which is ours alone
	held   *os.File // restoring, open
	path   string   // of held: see Dir
	unlock func()
	step   func(what string) // is told before each change
	placed bool              // there is placedMark
}

// BeginRestore takes the lock of a data directory that has nothing in it, and makes the place where files are
// collected. What an earlier restore left there, which was broken off, goes.
func BeginRestore(dir string, step func(what string)) (*Restoration, error) {
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lockFile(filepath.Join(dir, LockName))
	if err != nil {
		return nil, err
	}
	r := &Restoration{dir: dir, unlock: unlock, step: step}
	if err := r.begin(); err != nil {
		r.Close()
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	return r, nil
}

func (r *Restoration) begin() (err error) {
	if r.data, err = os.OpenRoot(r.dir); err != nil {
		return err
	}
	names, err := r.there()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if err := mayClear(names); err != nil {
			return err
		}
	}
	if err := r.collect(); err != nil {
		return err
	}
	_, err = r.in.Lstat(placedMark)
	r.placed = err == nil
	if len(names) > 1 { // an older version made no mark, and the removal at the end may have been broken off
		err = r.mark()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(r.clear(names), disk.SyncIn(r.data, "."))
}

// collect opens the directory in which files are collected, and makes it where it is missing.
func (r *Restoration) collect() error {
	info, err := r.data.Lstat(restoring)
	if errors.Is(err, fs.ErrNotExist) {
		r.step("make " + restoring)
		if err = r.data.Mkdir(restoring, 0o700); err == nil {
			info, err = r.data.Lstat(restoring)
		}
	}
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory: move it away", restoring)
	}
	if err == nil {
		r.in, err = r.data.OpenRoot(restoring)
	}
	if err == nil {
		r.held, err = r.in.Open(".")
	}
	if err != nil {
		return err
	}
	if now, err := r.held.Stat(); err != nil || !os.SameFile(info, now) {
		return errors.Join(err, errSwapped)
	}
	r.path = filepath.Clean(pathOf(r.held))
	return aloneIn(r.held)
}

var errSwapped = errors.New(restoring + " is another directory now than it was: stop what moves it, and begin anew")

// Dir is a path of where files are collected. On Linux it leads there whatever is renamed meanwhile. Elsewhere, or
// without /proc, somebody who may write to the data directory could put another one in its place: Stays tells.
func (r *Restoration) Dir() string { return r.path }

// Stays refuses to go on where Dir leads elsewhere by now.
func (r *Restoration) Stays() error { return leadsTo(r.path, r.held) }

// leadsTo returns nil if a path is that of an open directory.
func leadsTo(path string, dir *os.File) error {
	there, err := os.Stat(path)
	if err != nil {
		return errors.Join(err, errSwapped)
	}
	opened, err := dir.Stat()
	if err == nil && !os.SameFile(there, opened) {
		err = errSwapped
	}
	return err
}

// Named adds to an error that has Dir in it what people know that by.
func (r *Restoration) Named(err error) error {
	if at := r.in.Name(); err != nil && r.path != at && strings.Contains(err.Error(), r.path) {
		return fmt.Errorf("%w (%s is %s)", err, r.path, at)
	}
	return err
}

// Root is where files are collected, for who writes there.
func (r *Restoration) Root() *os.Root { return r.in }

// mayClear refuses a directory in use. While a restore is broken off there nobody else has written to it, so that what
// it has is of the restore.
func mayClear(names []string) error {
	if !slices.Contains(names, restoring) {
		return fmt.Errorf("it is not empty, it has %s: a restore takes an empty directory; move what is there away, "+
			"or name another data_dir", names[0])
	}
	for _, name := range names {
		if name != restoring && !slices.Contains(restored, name) {
			return fmt.Errorf("a restore was broken off there, and %s is not of it: move it away", name)
		}
	}
	return nil
}

// clear removes what a broken restore has left under these names.
func (r *Restoration) clear(names []string) error {
	for _, name := range names {
		if name != restoring {
			r.step("remove " + name)
			if err := r.data.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	r.step("remove what is in " + restoring)
	return r.empty()
}

// empty removes what was collected.
func (r *Restoration) empty() error {
	entries, err := fs.ReadDir(r.in.FS(), ".")
	for _, e := range entries {
		if e.Name() != placedMark {
			err = errors.Join(err, r.in.RemoveAll(e.Name()))
		}
	}
	return err
}

// there is what the directory has, but for what is in any.
func (r *Restoration) there() (names []string, err error) {
	entries, err := fs.ReadDir(r.data.FS(), ".")
	for _, e := range entries {
		if e.Name() != LockName && e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// restored are the names that a restore may give in the data directory, in this order: the store is last.
var restored = []string{config.TLSDir, AlertsName, AnswersName, seal.KeyFile, FileName}

// The names of files in the data directory that are saved and restored with the store: which alerts are open, and a
// file of the journal.
const (
	AlertsName  = "alerts.json"
	AnswersName = "answers.0"
)

// Lock takes the lock of a file, ErrLocked if another process has it, and makes the file where there is none.
func Lock(path string) (unlock func(), err error) { return lockFile(path) }

// Finish gives all that was collected its place. When it returns nil, the data directory can be used. After an error or
// a crash it is refused until a restore has ended well.
func (r *Restoration) Finish() error {
	// A command that looked before there was our directory may have made a store meanwhile. It stays.
	names, err := r.there()
	if err != nil || len(names) != 1 {
		return errors.Join(err, fmt.Errorf("%s was empty, and has %s now: stop what uses it, and begin anew", r.dir,
			strings.Join(names, ", ")))
	}
	if err := r.mark(); err != nil {
		return err
	}
	for _, name := range restored {
		if err := r.place(name); err != nil {
			return err
		}
	}
	if err := disk.SyncIn(r.data, "."); err != nil {
		return err
	}
	r.step("end " + restoring)
	r.leave()
	if err := r.data.RemoveAll(restoring); err != nil {
		return err
	}
	return disk.SyncIn(r.data, ".")
}

// mark notes that from now on something may have its place.
func (r *Restoration) mark() error {
	if r.placed {
		return nil
	}
	r.step("mark " + restoring)
	f, err := r.in.OpenFile(placedMark, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	r.placed = true
	return errors.Join(f.Close(), disk.SyncIn(r.in, "."))
}

// place gives what was collected under a name, if anything, its place.
func (r *Restoration) place(name string) error {
	_, err := r.in.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = ownedAs(r.dir, r.in, name)
	}
	if err != nil {
		return err
	}
	r.step("place " + name)
	return disk.RenameIn(r.data, filepath.Join(restoring, name), name)
}

// Abandon removes what was collected, unless some of it has its place already: then only a restore brings the directory
// into use again.
func (r *Restoration) Abandon() error {
	if r.placed {
		return errors.Join(r.empty(), fmt.Errorf("%s stays refused, since a restore had put something into it: run "+
			"postern restore again with what it needs, or remove %s to begin with an empty one", r.dir,
			filepath.Join(r.dir, restoring)))
	}
	r.step("abandon")
	err := r.empty() // under another name it would stay
	r.leave()
	return errors.Join(err, r.data.RemoveAll(restoring), disk.SyncIn(r.data, "."))
}

// leave closes where files are collected: Windows removes no directory that is open.
func (r *Restoration) leave() {
	r.held.Close()
	if r.in != nil {
		r.in.Close()
	}
}

// Close gives the lock back.
func (r *Restoration) Close() {
	r.leave()
	if r.data != nil {
		r.data.Close()
	}
	r.unlock()
}

// ExamineFile reads all of the store in a directory, which nobody uses, and changes nothing: that it is one of ours,
// whole, and not of a newer version.
func ExamineFile(ctx context.Context, dir string) error {
	conn, err := openConn(filepath.Join(dir, FileName))
	if err != nil {
		return fmt.Errorf("the store in it is damaged: %w", err)
	}
	defer conn.Close()
	defer interruptOn(ctx, conn)()
	app, _, err := conn.Int("PRAGMA application_id")
	switch {
	case err != nil:
		return fmt.Errorf("the store in it is damaged: %w", readError(ctx, err))
	case app != applicationID:
		return errors.New("the store in it is no store of postern")
	}
	found, err := originOf(conn, app)
	if err != nil {
		return fmt.Errorf("the store in it: %w", err)
	}
	if found.schema > len(migrations) {
		return found.newer()
	}
	if err := examineCopy(conn); err != nil {
		return fmt.Errorf("the store in it: %w", readError(ctx, err))
	}
	return readError(ctx, countsQueue(conn))
}

// countsQueue refuses a store whose counter is not that of its messages: a restore would take its queue for empty.
func countsQueue(conn db.Conn) error {
	said, _, err := conn.Int("SELECT messages FROM counter")
	if err != nil {
		return fmt.Errorf("the store in it: %w", err)
	}
	has, _, err := conn.Int("SELECT count(*) FROM message")
	if err == nil && has != said {
		err = fmt.Errorf("it is damaged: it counts %d messages, and has %d", said, has)
	}
	if err != nil {
		return fmt.Errorf("the store in it: %w", err)
	}
	return nil
}

// SchemaVersion is the newest that this program knows.
func SchemaVersion() int { return len(migrations) }

// WholeFile returns nil if the closed store in a directory is in its one file, without a log, and synced, and removes
// what SQLite and the lock have left beside it.
func WholeFile(dir string) error {
	path := filepath.Join(dir, FileName)
	if n := sizeOf(path + "-wal"); n != 0 {
		return fmt.Errorf("%s has a log of %d octets still", path, n)
	}
	for _, name := range []string{FileName + "-wal", FileName + "-shm", LockName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// EndSessions ends all sessions of people in browsers, and withdraws the invitations to the console: in a store that
// comes from a backup they may be ones that were ended or used since.
func (s *Store) EndSessions(ctx context.Context) error {
	err := s.write(ctx, func(t *tx) error {
		for _, name := range []string{"console_session", "person_session", "console_invite", "console_keepsake"} {
			if err := t.Run("DELETE FROM " + name); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap(err, "end sessions")
}

// DropAll takes all messages out of the queue of a store that no daemon uses, and returns how many. The trace has what
// became of each recipient who was pending: why says it of those that no upstream is known to have taken.
func (s *Store) DropAll(ctx context.Context, why string) (dropped int64, err error) {
	taken, err := s.takenBy(s.opts.Dir)
	if err != nil {
		return 0, err
	}
	if _, err := s.ReleaseLeases(ctx, s.Owner()); err != nil {
		return 0, err
	}
	for {
		found, more, err := s.page(ctx, queue.Filter{}, "", actionBatch)
		if err != nil {
			return dropped, wrap(err, "read the queue")
		}
		var events []trace.Event
		for _, m := range found {
			events = append(events, dropEvents(m, taken[m.ID], why)...)
		}
		if err := s.AppendEventsNow(ctx, events); err != nil {
			return dropped, err
		}
		n, err := s.actOn(ctx, found, drop)
		if dropped += int64(len(n)); err != nil || !more {
			return dropped, wrap(errors.Join(err, s.forgetAnswers(ctx)), "drop messages")
		}
	}
}

// forgetAnswers forgets what the API has answered: a client that asks again for what was dropped would be told that it
// is under way.
func (s *Store) forgetAnswers(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error { return t.Run("DELETE FROM api_answer") })
}

func drop(t *tx, id string) (bool, error) {
	p, err := t.find(id)
	if err != nil {
		return false, err
	}
	return true, p.remove(t, id)
}

// takenBy is what the journal says was delivered, by message and recipient.
func (s *Store) takenBy(dir string) (map[string]map[int]mail.Result, error) {
	text, err := journalText(dir)
	if err != nil {
		return nil, err
	}
	taken := map[string]map[int]mail.Result{}
	for _, n := range append(decodeNotes(text[0]), decodeNotes(text[1])...) {
		for _, r := range n.Results {
			if r.Class != mail.Delivered {
				continue
			}
			if taken[n.ID] == nil {
				taken[n.ID] = map[int]mail.Result{}
			}
			taken[n.ID][r.Recipient] = r
		}
	}
	return taken, nil
}

// dropEvents say what became of the pending recipients of a message that is dropped.
func dropEvents(m *queue.Message, taken map[int]mail.Result, why string) (events []trace.Event) {
	for i, r := range m.Recipients {
		if r.Status != queue.Pending {
			continue
		}
		e := trace.Event{Time: time.Now(), Kind: trace.Operator, ID: m.ID, Login: m.Login,
			From: m.Envelope.From.String(), To: r.To.String(), Size: m.Size, Detail: why}
		if answer, ok := taken[i]; ok {
			e.Kind, e.Reply, e.Upstream = trace.Delivered, answer.Reply, answer.Upstream
			e.Detail = "noted before the backup"
		}
		events = append(events, e)
	}
	return events
}
