package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"postern/relay/queue"
)

// Journal keeps what upstreams answered until it is committed: two files in the data directory that are written and
// never synced. What was written outlives the process, not the machine; see docs/decisions/0009-answers.md. It
// implements queue.Journal.
//
// A long file is emptied when nothing in it is of use any more; while something is, the other one is written to.
type Journal struct {
	mu    sync.Mutex
	files [2]journalFile
	now   int // which one is written to
}

type journalFile struct {
	*os.File
	size int64
	open int  // notes that are not forgotten
	left bool // it may have notes of former lives, which nobody has recalled
}

// journalSize is how long a file gets before the other one is written to.
const journalSize = 256 << 10

// OpenJournal opens the journal in a data directory that Open has prepared, making its files.
func OpenJournal(dir string) (*Journal, error) {
	j := &Journal{}
	for i := range j.files {
		f, err := openFile(journalPath(dir, i), os.O_RDWR|os.O_CREATE)
		if err == nil {
			j.files[i].File = f
			err = giveToOwner(f, dir)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the journal of answers: %w", err), j.Close())
		}
		if j.files[i].size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, errors.Join(fmt.Errorf("open the journal of answers: %w", err), j.Close())
		}
		j.files[i].left = j.files[i].size > 0
	}
	return j, nil
}

// Note implements queue.Journal.
func (j *Journal) Note(n queue.Note) (forget func(), err error) {
	line, err := encodeNote(n)
	if err != nil {
		return nil, fmt.Errorf("note the answer for %s: %w", n.ID, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	f := &j.files[j.now]
	if f.size >= journalSize {
		for _, i := range []int{j.now, 1 - j.now} {
			if j.files[i].needed() {
				continue
			}
			if err := j.files[i].empty(); err != nil {
				return nil, fmt.Errorf("note the answer for %s: %w", n.ID, err)
			}
			j.now, f = i, &j.files[i]
			break
		}
	}
	// What a failed write left is written over by the next.
	if _, err := f.WriteAt(line, f.size); err != nil {
		return nil, fmt.Errorf("note the answer for %s: %w", n.ID, err)
	}
	f.size += int64(len(line))
	f.open++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		f.open--
	}, nil
}

func (f *journalFile) needed() bool { return f.open > 0 || f.left }

func (f *journalFile) empty() error {
	if f.size == 0 {
		return nil
	}
	err := f.Truncate(0)
	if err == nil {
		f.size = 0
	}
	return err
}

// Notes implements queue.Journal. A line that is damaged, as the last one may be after a loss of power, says nothing.
func (j *Journal) Notes() (notes []queue.Note, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.files {
		b := make([]byte, j.files[i].size)
		if _, err := j.files[i].ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("read the journal of answers: %w", err)
		}
		notes = append(notes, decodeNotes(b)...)
	}
	return notes, nil
}

func journalPath(dir string, i int) string { return filepath.Join(dir, "answers."+strconv.Itoa(i)) }

func decodeNotes(b []byte) (notes []queue.Note) {
	for line := range bytes.Lines(b) {
		if n, ok := decodeNote(line); ok {
			notes = append(notes, n)
		}
	}
	return notes
}

// Clear implements queue.Journal.
func (j *Journal) Clear() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.files {
		j.files[i].left = false
	}
	return j.tidyLocked()
}

// tidyLocked empties the files in which nothing is of use.
func (j *Journal) tidyLocked() error {
	var err error
	for i := range j.files {
		if !j.files[i].needed() {
			err = errors.Join(err, j.files[i].empty())
		}
	}
	return wrap(err, "empty the journal of answers")
}

// Close closes the files and leaves in them what was not forgotten, and what former lives noted unless Clear was
// called: a process that ends before it has come to work must not take that along.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.tidyLocked()
	for i := range j.files {
		if j.files[i].File != nil {
			err = errors.Join(err, j.files[i].File.Close())
		}
	}
	return err
}

// A line is the checksum (CRC-32C) in eight hexadecimal digits, a space, the note as JSON, and the end of the line.
const sumLength = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeNote(n queue.Note) ([]byte, error) {
	data, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(make([]byte, 0, sumLength+len(data)+1), "%08x %s\n", crc32.Checksum(data, castagnoli), data), nil
}

func decodeNote(line []byte) (n queue.Note, ok bool) {
	if len(line) <= sumLength {
		return n, false
	}
	data, whole := bytes.CutSuffix(line[sumLength:], []byte("\n"))
	sum, err := strconv.ParseUint(string(line[:sumLength-1]), 16, 32)
	if !whole || err != nil || uint32(sum) != crc32.Checksum(data, castagnoli) {
		return n, false
	}
	return n, json.Unmarshal(data, &n) == nil && n.ID != ""
}
