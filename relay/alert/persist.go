package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"

	"postern/internal/disk"
)

// maxFile bounds how much of the file is read, in octets. It is far more than is ever written.
const maxFile = 8 << 20

// stateFile records who has been told what. Without it alerts are repeated; nothing else is lost.
type stateFile struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards the file and the field below
	failing bool       // and the log says so already
}

// state is the content of the file.
type state struct {
	Version int                 `json:"version"`
	Hooks   map[string][]*entry `json:"hooks"` // by idOf
}

func (f *stateFile) load() map[string][]*entry {
	if f.path == "" {
		return nil
	}
	b, err := f.read()
	if err != nil {
		f.log.Warn("cannot read which alerts were sent before, some may be repeated", "file", f.path, "err", err)
	}
	return b.Hooks
}

func (f *stateFile) read() (b state, err error) {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case err != nil:
		return state{}, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return state{}, errors.New("not a file of ours")
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return state{}, err
	}
	return parseState(data)
}

func parseState(data []byte) (state, error) {
	var b state
	if err := json.Unmarshal(data, &b); err != nil {
		return state{}, err
	}
	if b.Version != 1 {
		return state{}, fmt.Errorf("unknown version %d of this file", b.Version)
	}
	for hook, entries := range b.Hooks {
		for _, e := range entries {
			if e == nil || e.Told.IsZero() {
				return state{}, errors.New("an entry is incomplete")
			}
		}
		// A later version may have more events; this one would never end them.
		b.Hooks[hook] = slices.DeleteFunc(entries, func(e *entry) bool { return !slices.Contains(Events(), e.Event) })
	}
	return b, nil
}

// save writes what collect returns, atomically.
func (f *stateFile) save(collect func() map[string][]*entry) {
	if f.path == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.write(state{1, collect()})
	if err != nil && !f.failing {
		f.log.Warn("cannot record which alerts were sent, they may be repeated after a restart", "err", err)
	}
	f.failing = err != nil
}

func (f *stateFile) write(b state) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	next := f.path + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return disk.Rename(next, f.path)
}
