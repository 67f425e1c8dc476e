// Package passwdfile is the credential source of a file of logins and password hashes: what htpasswd writes, or a
// Dovecot passwd-file.
//
// # Failure semantics
//
// A file is taken whole or not at all: one broken line is named, and what was read before stays in force. It answers
// from memory and is never down. Hashes are checked when the file is read, so that none can fail, or work without end,
// during a login.
//
// # Time
//
// A wrong password costs the hash of its entry, and so does one for a login that has none: Dummy hashes against an
// entry that is chosen by the login, the same each time, with a key that only this process has.
package passwdfile

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/auth"
	"postern/internal/textfile"
)

// maxFile bounds the file, in octets: some 100 000 entries.
const maxFile = 16 << 20

// Source is a file. It is safe for concurrent use.
type Source struct {
	name, path string
	key        []byte // of the choice of Dummy
	hashed     func() // called for each hash; for tests

	reading sync.Mutex // one Reload at a time
	table   atomic.Pointer[table]
}

// table is a file as it was read.
type table struct {
	entries map[string]*entry
	list    []*entry // those with a hash, in the order of the file
	shapes  []auth.ScramShape
}

// New reads the file. The error is why it cannot be used: a *LineError, or one of package textfile.
func New(name, path string) (*Source, error) {
	s := &Source{name: name, path: path, key: make([]byte, 32), hashed: func() {}}
	rand.Read(s.key) // never fails
	t, err := read(path)
	if err != nil {
		return nil, err
	}
	s.table.Store(t)
	return s, nil
}

func read(path string) (*table, error) {
	data, err := textfile.Bounded(path, maxFile)
	if err != nil {
		return nil, err
	}
	t, err := parse(data)
	if bad, ok := err.(*LineError); ok {
		bad.Path = path
	}
	return t, err
}

// Name implements auth.Source.
func (s *Source) Name() string { return s.name }

// Path is the file.
func (s *Source) Path() string { return s.path }

// Len is how many logins the file has.
func (s *Source) Len() int { return len(s.table.Load().entries) }

// Reload reads the file again. On an error nothing changes. Sessions of logins whose password or lock is another now
// end, which Lookup tells by Changed.
func (s *Source) Reload() error { return s.reload(time.Now()) }

func (s *Source) reload(now time.Time) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	t, err := read(s.path)
	if err != nil {
		return err
	}
	old := s.table.Load()
	for login, e := range t.entries {
		was, known := old.entries[login]
		switch {
		case !known:
			e.identity.Created, e.identity.Changed = now, now
		case was.hash != e.hash || was.locked != e.locked:
			e.identity.Changed = now
		default:
			e.identity.Created, e.identity.Changed = was.identity.Created, was.identity.Changed
		}
	}
	s.table.Store(t)
	return nil
}

// Verify implements auth.Source.
func (s *Source) Verify(_ context.Context, login, password string) (auth.Identity, error) {
	t := s.table.Load()
	e, ok := t.entries[login]
	if !ok {
		return auth.Identity{}, auth.ErrUnknownLogin
	}
	right := false
	if e.hash == "" {
		s.dummy(t, login, password)
	} else {
		s.hashed()
		right = e.verify(password)
	}
	switch {
	case e.locked != "":
		return auth.Identity{}, fmt.Errorf("%w: %s", auth.ErrLocked, e.locked)
	case !right:
		return auth.Identity{}, auth.ErrWrongPassword
	}
	return e.identity, nil
}

// Lookup says who a login is.
func (s *Source) Lookup(_ context.Context, login string) (auth.Identity, error) {
	e, ok := s.table.Load().entries[login]
	switch {
	case !ok:
		return auth.Identity{}, auth.ErrUnknownLogin
	case e.locked != "":
		return auth.Identity{}, fmt.Errorf("%w: %s", auth.ErrLocked, e.locked)
	}
	return e.identity, nil
}

// Dummy does the work of a wrong password for a login that the file does not have.
func (s *Source) Dummy(login, password string) { s.dummy(s.table.Load(), login, password) }

func (s *Source) dummy(t *table, login, password string) {
	if len(t.list) == 0 {
		return
	}
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(login))
	n := binary.LittleEndian.Uint64(mac.Sum(nil)) % uint64(len(t.list))
	s.hashed()
	t.list[n].verify(password)
}

// Scram returns what a login proves itself with by SCRAM; auth.ErrUnknownLogin if the file does not have it.
func (s *Source) Scram(_ context.Context, login string) (auth.KeyEntry, error) {
	e, ok := s.table.Load().entries[login]
	if !ok {
		return auth.KeyEntry{}, auth.ErrUnknownLogin
	}
	entry := auth.KeyEntry{Identity: e.identity, Keys: e.scramKeys()}
	if e.locked != "" {
		entry.Locked = fmt.Errorf("%w: %s", auth.ErrLocked, e.locked)
	}
	return entry, nil
}

// ScramShapes are those of the keys in the file, each once.
func (s *Source) ScramShapes() (shapes []auth.ScramShape) {
	return s.table.Load().shapes
}

// WithoutScram returns how many logins have no keys for SCRAM, and the first of them in the alphabet.
func (s *Source) WithoutScram() (n int, first []string) {
	for login, e := range s.table.Load().entries {
		if e.scramKeys().IsZero() {
			n++
			first = append(first, login)
		}
	}
	slices.Sort(first)
	return n, first[:min(len(first), 5)]
}

func (e *entry) scramKeys() auth.ScramKeys {
	text, ok := strings.CutPrefix(string(e.hash), scramScheme)
	if !ok {
		return auth.ScramKeys{}
	}
	k, _ := auth.DecodeScram(auth.Secret(text)) // it was read before
	return k
}
