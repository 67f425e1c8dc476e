package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"postern/internal/filelock"
	"postern/relay/config"
	"postern/relay/seal"
)

// Of says where the store of a configuration is and what bounds it. A password or key that cannot be read is told by
// Open.
func Of(c *config.Config) Options {
	o := Options{Dir: c.DataDir, URL: c.Store.URL, MaxBytes: int64(c.Store.MaxSize), MinFree: int64(c.Store.MinFree)}
	if o.URL.Server() {
		o.MinFree = -1 // the disk is the server's
		o.Node, o.Degraded = c.Store.Node, c.Store.Degraded
		o.Password, o.SealKey, o.unusable = config.StoreSecrets(c)
	}
	return o
}

// Place says for people where the store is: the path of the file, or the server without a password.
func (o Options) Place() string {
	if o.URL.Server() {
		return o.URL.Place()
	}
	return filepath.Join(o.Dir, FileName)
}

// There reports whether there is a store, and makes none.
func (o Options) There(ctx context.Context) (bool, error) {
	if err := errors.Join(ctx.Err(), o.unusable); err != nil {
		return false, err
	}
	if o.URL.Server() {
		return newServer(o, &fuse{}).there(ctx)
	}
	if err := notRestoring(o.Dir); err != nil {
		return false, err
	}
	_, err := os.Stat(o.Place())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// OpenThere opens a store that is there already. Where there is none, it returns nil without an error.
func OpenThere(ctx context.Context, o Options) (*Store, error) {
	if there, err := o.There(ctx); err == nil && !there {
		return nil, nil
	}
	return Open(ctx, o) // which explains what is wrong better
}

// OpenToLook opens a store for a command that only reads. Where there is none, it makes none, since a restore takes an
// empty data directory: it opens an empty store in a directory for temporary files, which Close removes, and reports
// that there is none.
func OpenToLook(ctx context.Context, o Options) (s *Store, there bool, err error) {
	if s, err = OpenThere(ctx, o); s != nil || err != nil {
		return s, true, err
	}
	dir, err := os.MkdirTemp("", "postern-")
	if err == nil {
		if s, err = Open(ctx, Options{Dir: dir, Logger: o.Logger, MinFree: -1}); err == nil {
			s.unlock = func() { os.RemoveAll(dir) }
			return s, false, nil
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return nil, false, fmt.Errorf("there is no store at %s yet, and no empty one to read instead: %w", o.Place(), err)
}

// Sealer seals what is secret in the store: with the key of the nodes, or with the one in the data directory, which is
// made where it is missing.
func (o Options) Sealer() (*seal.Sealer, error) {
	if !o.URL.Server() {
		return openSealer(o.Dir)
	}
	if o.unusable != nil {
		return nil, o.unusable
	}
	return seal.New([]byte(o.SealKey))
}

// Serving reports whether a daemon of this machine uses the store: it has the lock of the data directory, wherever the
// store is.
func Serving(o Options) bool {
	f, err := os.Open(filepath.Join(o.Dir, LockName))
	if err != nil {
		return false
	}
	defer filelock.Close(f)
	return errors.Is(filelock.TryShared(f), filelock.ErrHeld)
}
