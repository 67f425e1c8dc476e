package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"postern/internal/disk"
	"postern/relay/config"
	"postern/relay/seal"
	"postern/relay/store"
)

// RestoreOptions say what is brought back, and where to.
type RestoreOptions struct {
	Dir        string // data directory, which is missing or empty
	SealKey    string // file of the key that seals secrets, for a backup that has it not; "": none
	Passphrase Passphrase
	// Accept is asked before anything else is read; an error refuses the backup. nil: all are taken.
	Accept func(m *Manifest) error
	// Settle makes the store ready for its new life, before it gets its place. An error leaves nothing behind.
	Settle func(ctx context.Context, s *store.Store, m *Manifest) error

	Progress func(what string) // is told what begins; nil: nobody
	step     func(what string) // of tests: is told before each change
}

func (o RestoreOptions) withDefaults() RestoreOptions {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	if o.Accept == nil {
		o.Accept = func(*Manifest) error { return nil }
	}
	return o
}

// Restore brings a backup back into a data directory.
func Restore(ctx context.Context, from io.Reader, o RestoreOptions) (m Manifest, err error) {
	o = o.withDefaults()
	// The passphrase comes before a broken restore is cleared away.
	archive, err := decrypted(&reader{ctx, from}, o.Passphrase)
	if err != nil {
		return m, unread(err)
	}
	r, err := store.BeginRestore(o.Dir, o.step)
	if err != nil {
		return m, err
	}
	defer r.Close()
	if m, err = o.gather(ctx, archive, r); err == nil {
		err = o.settle(ctx, r, &m)
	}
	if err == nil {
		o.Progress("put everything in its place")
		err = r.Finish()
	}
	if err != nil {
		err = errors.Join(r.Named(err), r.Abandon())
	}
	return m, err
}

// Check verifies a backup as Restore does, with the store in a temporary directory, and brings nothing back. Without a
// key it does not look whether a key is the right one. No key comes to the disk.
func Check(ctx context.Context, from io.Reader, o RestoreOptions) (m Manifest, err error) {
	o = o.withDefaults()
	dir, err := os.MkdirTemp("", "postern-check-*")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	archive, err := decrypted(&reader{ctx, from}, o.Passphrase)
	if err != nil {
		return m, unread(err)
	}
	in, err := os.OpenRoot(dir)
	if err != nil {
		return m, err
	}
	defer in.Close()
	m, held, err := o.verify(ctx, archive, in, dir, func(name string) bool { return name == store.FileName })
	if err != nil || !m.HasKey() && o.SealKey == "" {
		return m, err
	}
	_, err = o.key(held, &m)
	return m, err
}

// Configuration is the relay.toml that a backup has, after all of that was verified.
func Configuration(from io.Reader, passphrase Passphrase) (text []byte, err error) {
	plain, err := decrypted(from, passphrase)
	if err != nil {
		return nil, unread(err)
	}
	_, err = readArchive(plain, func(*Manifest) error { return nil }, func(p Part, r io.Reader) (err error) {
		if p.Name == configName {
			text, err = io.ReadAll(io.LimitReader(r, maxConfig))
		}
		return err
	})
	switch {
	case err != nil:
		return nil, unread(err)
	case text == nil:
		return nil, errors.New("the backup has no relay.toml: only encrypted ones have")
	}
	return text, nil
}

// maxConfig bounds relay.toml, in octets.
const maxConfig = 16 << 20

// gather puts all parts into their place, verified, with the key.
func (o *RestoreOptions) gather(ctx context.Context, from plain, r *store.Restoration) (m Manifest, err error) {
	wanted := func(name string) bool { return name != configName } // its owner's
	m, held, err := o.verify(ctx, from, r.Root(), r.Dir(), wanted)
	if err != nil {
		return m, err
	}
	key, err := o.key(held, &m)
	if err != nil {
		return m, err
	}
	o.step("write " + seal.KeyFile)
	return m, write(r.Root(), seal.KeyFile, bytes.NewReader(key))
}

// verify puts those parts into dir that are wanted, the store at least, looks whether all are whole, and returns the
// key that seals secrets, if there is one. path is that of dir.
func (o *RestoreOptions) verify(ctx context.Context, from plain, dir *os.Root, path string,
	wanted func(name string) bool) (m Manifest, key []byte, err error) {
	o.Progress("read the backup")
	accept := func(m *Manifest) error { return o.accept(dir, path, m) }
	m, err = readArchive(from, accept, func(p Part, r io.Reader) (err error) {
		switch {
		case p.Name == seal.KeyFile:
			key, err = io.ReadAll(io.LimitReader(r, maxKey))
		case wanted(p.Name):
			err = o.put(dir, p, r)
		}
		return err
	})
	if err != nil {
		return m, nil, unread(err)
	}
	o.Progress("read the store in it")
	if err := store.ExamineFile(ctx, path); err != nil {
		return m, nil, unread(err)
	}
	return m, key, nil
}

// accept refuses a backup for which there is no room, and those that Accept does.
func (o *RestoreOptions) accept(dir *os.Root, path string, m *Manifest) error {
	room, err := disk.Of(path)
	if err == nil && m.Size() > room.Free {
		err = fmt.Errorf("it takes %d MB, and %d MB are free in %s: make room", m.Size()/1e6, room.Free/1e6,
			dir.Name())
	}
	if err != nil {
		return err
	}
	return o.Accept(m)
}

// unread says that nothing has come of a backup.
func unread(err error) error { return fmt.Errorf("read the backup: %w", err) }

// put writes a part to its place in dir. Its name is one of ours.
func (o *RestoreOptions) put(dir *os.Root, p Part, r io.Reader) error {
	o.step("write " + p.Name)
	if strings.HasPrefix(p.Name, config.TLSDir+"/") {
		if err := dir.MkdirAll(config.TLSDir, 0o700); err != nil {
			return err
		}
	}
	return write(dir, filepath.FromSlash(p.Name), r)
}

// write makes a file, and syncs it and its name.
func write(dir *os.Root, name string, r io.Reader) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), disk.SyncIn(dir, filepath.Dir(name)))
}

// key is the one that opens what is sealed in the store: held by the backup, or in a file.
func (o *RestoreOptions) key(held []byte, m *Manifest) (key []byte, err error) {
	key, what := held, "the key in the backup"
	if !m.HasKey() {
		if what = o.SealKey; what == "" {
			return nil, fmt.Errorf("the backup has no %s, with which DKIM keys and other secrets in it are sealed: "+
				"name the file that was in data_dir with --seal-key", seal.KeyFile)
		}
		f, err := os.Open(o.SealKey)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if key, err = io.ReadAll(io.LimitReader(f, maxKey)); err != nil {
			return nil, err
		}
	}
	sealer, err := seal.New(key)
	if err != nil {
		return nil, fmt.Errorf("%s is no key: %w", what, err)
	}
	err = store.Proves(sealer, m.Proof)
	if errors.Is(err, seal.ErrOtherKey) {
		return nil, fmt.Errorf("%s is not the one that this backup is sealed with", what)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return key, nil
}

// maxKey is more than a key has, in octets.
const maxKey = 1 << 10

// settle brings the schema up to date and makes the store ready for its new life.
func (o *RestoreOptions) settle(ctx context.Context, r *store.Restoration, m *Manifest) error {
	o.step("settle")
	if err := r.Stays(); err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Options{Dir: r.Dir(), Daemon: true, MinFree: -1})
	if err != nil {
		return err
	}
	s.Hurry()
	err = o.Settle(ctx, s, m)
	if err = errors.Join(err, s.Close(), r.Stays()); err != nil {
		return err
	}
	return store.WholeFile(r.Dir())
}

// reader ends when its context does.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}
