package acme

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// shelf is a Storage in memory. The real one, of package store, has tests of its own; it reads configurations, and so
// cannot be here.
type shelf struct {
	mu    sync.Mutex // guards what follows
	items map[string]item
	locks map[string]bool
}

type item struct {
	value    []byte
	modified time.Time
}

var shelves sync.Map // by directory

// openStore returns what all have who name the directory.
func openStore(_ *testing.T, dir string) *shelf {
	s, _ := shelves.LoadOrStore(dir, &shelf{items: map[string]item{}, locks: map[string]bool{}})
	return s.(*shelf)
}

// ACME is named as that of the store.
func (s *shelf) ACME() *shelf { return s }

func (s *shelf) Announce(context.Context) error { return nil }

func (s *shelf) TryLock(_ context.Context, name string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[name] {
		return false, nil
	}
	s.locks[name] = true
	return true, nil
}

func (s *shelf) Lock(ctx context.Context, name string) error {
	for {
		if got, err := s.TryLock(ctx, name); got || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *shelf) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.locks[name] {
		return errors.New("it is not locked")
	}
	delete(s.locks, name)
	return nil
}

func (s *shelf) Store(ctx context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.items[key] = item{bytes.Clone(value), time.Now()}
	return nil
}

func (s *shelf) Load(ctx context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	i, ok := s.items[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(i.value), nil
}

func (s *shelf) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.items, func(at string, _ item) bool { return at == key || strings.HasPrefix(at, key+"/") })
	return ctx.Err()
}

func (s *shelf) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

func (s *shelf) List(_ context.Context, dir string, recursive bool) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for key := range s.items {
		if rest, below := strings.CutPrefix(key, dir+"/"); below {
			if first, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
				key = dir + "/" + first
			}
			all = append(all, key)
		}
	}
	if len(all) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (s *shelf) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.items[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Size: int64(len(i.value)), Modified: i.modified, IsTerminal: true}, nil
}
