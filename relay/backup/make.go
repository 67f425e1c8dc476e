// Package backup makes one file of all that a relay must not lose, while it runs, and brings it back into an empty data
// directory.
//
// Failure semantics: a backup gets its name only when it is whole and synced. A restore verifies all of a backup before
// anything of it gets its place, and until everything has, the data directory is refused to whoever would use it; one
// that was broken off, however it was, is begun anew by calling it again. Neither overwrites anything unasked.
package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/auth"
	"postern/certs"
	"postern/internal/disk"
	"postern/relay/config"
	"postern/relay/seal"
	"postern/relay/store"
)

// Standard is the name of standard output, or input, as a backup.
const Standard = "-"

// Options say what a backup is made of.
type Options struct {
	Config  *config.Config
	Store   *store.Store // of Config
	Version string       // of this program

	File        string    // where it goes, or Standard
	Out         io.Writer // for Standard
	Overwrite   bool      // what has the name is replaced
	WithoutMail bool      // leave out queued messages
	Passphrase  auth.Secret

	Progress func(what string) // is told what begins; nil: nobody
	Work     int               // to try a passphrase, as the power of two that scrypt takes; 0: as much as there may be
	step     func(what string) // of tests: is told before each change
}

// Made is a backup that was made.
type Made struct {
	Manifest
	File      string `json:"file"`
	Encrypted bool   `json:"encrypted"`
	// Key is where the key is that opens what is sealed in it; "": it has that itself.
	Key string `json:"key,omitempty"`
}

// Make makes a backup of a store beside the daemon, which is not held up. With a passphrase all of it is encrypted, and
// it also has what is as good as a password: the key that seals secrets, the keys of the self-signed certificate, and
// relay.toml. Without one it has none of these.
func Make(ctx context.Context, o Options) (made Made, err error) {
	o = o.withDefaults()
	if o.Store.Shared() {
		return made, fmt.Errorf("%w: back up the database with its own tools, such as pg_dump -Fc, and keep seal_key "+
			"and relay.toml; docs/disaster.md has the steps", store.ErrAtServer)
	}
	if err := o.room(ctx); err != nil {
		return made, err
	}
	dir, done, err := o.workplace()
	if err != nil {
		return made, err
	}
	defer func() {
		o.step("tidy")
		err = errors.Join(err, done())
	}()
	at, forget, err := o.Store.CopyPlace()
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, forget()) }()
	m, files, err := o.collect(ctx, at)
	if err != nil {
		return made, err
	}
	o.Progress("write it")
	if err := o.write(ctx, dir, m, files); err != nil {
		return made, fmt.Errorf("write the backup: %w", err)
	}
	made = Made{Manifest: *m, File: o.File, Encrypted: o.Passphrase != ""}
	if !m.HasKey() {
		made.Key = filepath.Join(o.Config.DataDir, seal.KeyFile)
	}
	return made, nil
}

func (o Options) withDefaults() Options {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	o.Work = cmp.Or(o.Work, workFactor)
	return o
}

// room refuses a backup for which there is no room: the daemon takes no mail where less than min_free is.
func (o *Options) room(ctx context.Context) error {
	room, err := o.Store.Room(ctx)
	if err != nil {
		return err
	}
	dir := o.Config.DataDir
	if log, err := os.Stat(filepath.Join(dir, store.FileName+"-wal")); err == nil {
		room.File += log.Size()
	}
	copies := int64(1)
	if o.WithoutMail { // the copy is written once more
		copies++
	}
	if o.File != Standard {
		to := filepath.Dir(o.File)
		same, err := disk.Same(dir, to)
		if err != nil {
			return err
		}
		if same { // then the smaller copy and the archive are there at once, and the first copy no more
			copies = 2
		} else if there, err := disk.Of(to); err != nil || there.Free < room.File && !o.WithoutMail {
			return errors.Join(err, fmt.Errorf("the backup may have %d MB, and %d MB are free in %s: make room, or "+
				"name another place", room.File/1e6, there.Free/1e6, to))
		}
	}
	if need, floor := copies*room.File, max(0, room.Floor); room.Free-need < floor {
		return fmt.Errorf("a copy of the store is made in %s, which takes %d MB meanwhile; of the %d MB that are free "+
			"there %d must stay so (min_free): make room, or name a FILE on another disk", dir, need/1e6, room.Free/1e6,
			floor/1e6)
	}
	return nil
}

// workplace makes a directory of our own beside the file, so that a rename gives that its name. It has the archive
// alone: the copy of the store, which is in clear, is in data_dir. What an earlier backup left there that was broken
// off goes. done removes it.
func (o *Options) workplace() (dir string, done func() error, err error) {
	if o.File == Standard {
		return "", func() error { return nil }, nil
	}
	if err := o.free(); err != nil {
		return "", nil, err
	}
	dir = o.File + ".part"
	o.step("make " + dir)
	if err = os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		if err = removeStale(dir); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err != nil {
		return "", nil, err
	}
	unlock, err := store.Lock(lockOf(dir))
	if err != nil {
		return "", nil, err
	}
	return dir, func() error { defer unlock(); return os.RemoveAll(dir) }, nil
}

func lockOf(dir string) string { return filepath.Join(dir, "lock") }

// removeStale removes what a backup left that was killed. One that is being made has its lock.
func removeStale(dir string) error {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is in the way: move it away", dir))
	}
	unlock, err := store.Lock(lockOf(dir))
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("another backup is just being written to %s", strings.TrimSuffix(dir, ".part"))
	}
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(dir)
}

// free refuses a name that is taken, and one in the directory that the backup is of.
func (o *Options) free() error {
	path, err := filepath.Abs(o.File)
	if err != nil {
		return err
	}
	to, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(o.Config.DataDir)
	if err != nil {
		return err
	}
	if in, err := filepath.Rel(dir, to); err == nil && filepath.IsLocal(in) {
		return fmt.Errorf("%s is in data_dir, and would be lost with it: name a file elsewhere, best on another disk",
			o.File)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is there, and is not a regular file: name a file", o.File)
	case !o.Overwrite:
		return fmt.Errorf("%s is there already: name another file, or say --overwrite", o.File)
	}
	return nil
}

// collect copies the store into dir and finds all other parts.
func (o *Options) collect(ctx context.Context, dir string) (*Manifest, []file, error) {
	o.Progress("copy the store, and read the copy")
	o.step("copy")
	made := time.Now().UTC().Truncate(time.Second)
	db := filepath.Join(dir, store.FileName)
	copied, err := o.Store.Snapshot(ctx, db, store.SnapshotOptions{WithoutMail: o.WithoutMail})
	if err != nil {
		return nil, nil, err
	}
	files := []file{{Part: Part{Name: store.FileName}, path: db}}
	if len(copied.Answers) > 0 {
		files = append(files, file{Part: Part{Name: store.AnswersName}, data: copied.Answers})
	}
	others, err := o.others()
	if err != nil {
		return nil, nil, err
	}
	files = append(files, others...)
	o.Progress("compute checksums")
	for i := range files {
		if err := files[i].measure(); err != nil {
			return nil, nil, err
		}
	}
	return &Manifest{Format: Format, Made: made, Version: o.Version, Schema: copied.Schema, Hostname: o.Config.Hostname,
		Mail: !o.WithoutMail, Messages: copied.Messages, Octets: copied.Octets, LeftOut: copied.LeftOut,
		Proof: copied.Proof}, files, nil
}

// others are the parts beside the store. Those that nobody may have in clear are there with a passphrase alone.
func (o *Options) others() (files []file, err error) {
	add := func(name, path string, optional bool) error {
		data, err := os.ReadFile(path)
		if optional && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files = append(files, file{Part: Part{Name: name}, data: data})
		return err
	}
	dir := o.Config.DataDir
	err = add(store.AlertsName, filepath.Join(dir, store.AlertsName), true)
	if o.Passphrase == "" || err != nil {
		return files, err
	}
	for _, name := range certs.SelfSignedFiles() {
		err = errors.Join(err, add(config.TLSDir+"/"+name, filepath.Join(dir, config.TLSDir, name), true))
	}
	return files, errors.Join(err, add(seal.KeyFile, filepath.Join(dir, seal.KeyFile), false),
		add(configName, o.Config.Path(), false))
}

// write writes the archive, and gives it its name once it is synced.
func (o *Options) write(ctx context.Context, dir string, m *Manifest, files []file) error {
	if o.File == Standard {
		return writeArchive(&writer{ctx, o.Out}, m, files, o.Passphrase, o.Work)
	}
	path := filepath.Join(dir, "backup")
	o.step("write")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = writeArchive(&syncing{f: f, ctx: ctx}, m, files, o.Passphrase, o.Work)
	if err == nil {
		o.step("sync")
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	o.step("rename")
	if err := o.name(path); err != nil {
		return err
	}
	o.step("sync directory")
	return disk.SyncDir(filepath.Dir(o.File))
}

// name gives the archive its name. A file that somebody has made meanwhile is not replaced, unless that was said: a
// link, other than a rename, fails where there is one. What knows no links is looked at just before.
func (o *Options) name(path string) error {
	if !o.Overwrite {
		err := os.Link(path, o.File)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := o.free(); err != nil {
		return err
	}
	return disk.Rename(path, o.File)
}

// syncing is a file that is synced as it grows: one sync of it all would hold up those of the daemon's commits. It ends
// when its context does.
type syncing struct {
	f      *os.File
	ctx    context.Context
	behind int // octets that are not synced
}

// syncEvery is how much may be behind, in octets.
const syncEvery = 64 << 20

func (w *syncing) Write(b []byte) (int, error) {
	n, err := (&writer{w.ctx, w.f}).Write(b)
	if w.behind += n; err == nil && w.behind >= syncEvery {
		w.behind, err = 0, w.f.Sync()
	}
	return n, err
}

// writer ends when its context does.
type writer struct {
	ctx context.Context
	io.Writer
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}
