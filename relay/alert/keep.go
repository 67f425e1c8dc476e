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
)

// maxFile bounds what is read of the file, in octets: far more than is ever written.
const maxFile = 8 << 20

// keeper is the file that says who has been told what. Nothing is lost with it but silence: without it an alert is repeated.
type keeper struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards the file and what follows
	failing bool       // said once
}

// book is the content of the file.
type book struct {
	Version int                 `json:"version"`
	Hooks   map[string][]*entry `json:"hooks"` // by idOf
}

func (k *keeper) load() map[string][]*entry {
	if k.path == "" {
		return nil
	}
	b, err := k.read()
	if err != nil {
		k.log.Warn("it is not known which alerts were sent before, some may be sent again", "file", k.path, "err", err)
	}
	return b.Hooks
}

func (k *keeper) read() (b book, err error) {
	info, err := os.Stat(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return book{}, nil
	case err != nil:
		return book{}, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return book{}, errors.New("it is not a file of ours")
	}
	data, err := os.ReadFile(k.path)
	if err != nil {
		return book{}, err
	}
	return parseBook(data)
}

func parseBook(data []byte) (book, error) {
	var b book
	if err := json.Unmarshal(data, &b); err != nil {
		return book{}, err
	}
	if b.Version != 1 {
		return book{}, fmt.Errorf("version %d of this file is not known", b.Version)
	}
	for hook, entries := range b.Hooks {
		for _, e := range entries {
			if e == nil || e.Told.IsZero() {
				return book{}, errors.New("an entry is not whole")
			}
		}
		// A later version may know of more; here nobody would end it.
		b.Hooks[hook] = slices.DeleteFunc(entries, func(e *entry) bool { return !slices.Contains(Events(), e.Event) })
	}
	return b, nil
}

// save writes what collect returns, whole or not at all.
func (k *keeper) save(collect func() map[string][]*entry) {
	if k.path == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.write(book{1, collect()})
	if err != nil && !k.failing {
		k.log.Warn("it cannot be written down which alerts were sent, they may be repeated after a restart", "err", err)
	}
	k.failing = err != nil
}

func (k *keeper) write(b book) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	next := k.path + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, k.path)
}
