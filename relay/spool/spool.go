// Package spool buffers incoming messages until the upstream or the store has taken them: in memory, within a budget
// for all messages together, and beyond it in unnamed temporary files.
//
// Failure semantics: nothing here is durable, and nothing is acknowledged because of it. A Buffer that has failed once
// stays failed, so that no cut message can come out of it; every error is a *mail.Error of 4yz (452 4.3.1 for space,
// 451 4.3.0 otherwise). No message can show another's octets: memory that has held one is never reused, so even a
// reader that outlives its message reads the same. A crash leaves at most an empty file name in the directory, which
// New removes.
package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"postern/internal/errno"
	"postern/mail"
)

// Defaults of Options, in octets.
const (
	DefaultMemoryPerMessage = 2 << 20
	DefaultMemoryTotal      = 64 << 20
	DefaultDiskTotal        = 4 << 30
)

// prefix begins the names of temporary files, for the moment that they have one.
const prefix = "spool-"

// Options bounds a Spool.
type Options struct {
	Dir              string // for temporary files; "": the system's directory
	MemoryPerMessage int64  // octets of a message kept in memory; 0: DefaultMemoryPerMessage
	MemoryTotal      int64  // octets of all messages kept in memory; 0: DefaultMemoryTotal
	DiskTotal        int64  // octets of all temporary files; 0: DefaultDiskTotal
}

// Spool makes Buffers and accounts for their budgets. It is safe for concurrent use.
type Spool struct {
	options Options
	memory  budget
	disk    budget
}

// Stats is what the Buffers of a Spool hold, in octets.
type Stats struct{ Memory, Disk int64 }

// New removes what an earlier process left in the directory and returns a Spool.
func New(o Options) (*Spool, error) {
	o.Dir = cmp.Or(o.Dir, os.TempDir())
	o.MemoryPerMessage = cmp.Or(o.MemoryPerMessage, DefaultMemoryPerMessage)
	o.MemoryTotal = cmp.Or(o.MemoryTotal, DefaultMemoryTotal)
	o.DiskTotal = cmp.Or(o.DiskTotal, DefaultDiskTotal)
	s := &Spool{options: o, memory: budget{limit: o.MemoryTotal}, disk: budget{limit: o.DiskTotal}}
	if err := s.clean(); err != nil {
		return nil, fmt.Errorf("clean the spool directory: %w", err)
	}
	f, err := s.createFile()
	if err != nil {
		return nil, fmt.Errorf("write to the spool directory: %w", err)
	}
	return s, f.Close()
}

// clean removes files that still have a name because a process died between two system calls. If another process is
// about to unlink one, it already has it open.
func (s *Spool) clean() error {
	names, err := filepath.Glob(filepath.Join(s.options.Dir, prefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) && !isOpen(err) {
			return err
		}
	}
	return nil
}

// createFile returns an open file, which disappears with its last descriptor.
func (s *Spool) createFile() (*os.File, error) { return createUnnamed(s.options.Dir) }

// Stats returns the current use.
func (s *Spool) Stats() Stats { return Stats{Memory: s.memory.used.Load(), Disk: s.disk.used.Load()} }

// budget counts octets up to a limit.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// trouble gives an error of ours a reply.
func trouble(err error) error {
	if errno.Full(err) || errors.Is(err, errDiskBudget) {
		return mail.Refuse(mail.R(452, "4.3.1", "no space for the message right now, try again later"), err)
	}
	return mail.Refuse(mail.R(451, "4.3.0", "the message could not be stored, try again later"), err)
}

var errDiskBudget = errors.New("temporary files reached their limit")
