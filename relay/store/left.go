package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"postern/relay/store/internal/sqlite"
)

// LeftBehind reports whether data_dir has a store in a file with mail or accounts in it that was not moved to the
// server where the store is now: whoever changes [store] and does not move it begins with an empty one. Nothing is
// changed and nothing is made. An error: it cannot be told.
func LeftBehind(o Options) (bool, error) {
	path := filepath.Join(o.Dir, FileName)
	info, err := os.Lstat(path)
	switch {
	case !o.URL.Server() || errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, errors.New("it is not a regular file")
	}
	conn, err := sqlite.OpenFrozen(path)
	if err != nil {
		return false, err
	}
	state, err := stateOf(conn)
	if err == nil && state == leftEmpty && sizeOf(path+"-wal") > 0 {
		state, err = stateWithLog(path)
	}
	return state == leftFilled, err
}

// maxLeftCopy bounds what stateWithLog copies, in octets. A store without mail and accounts is larger than that by its
// history alone.
const maxLeftCopy = 64 << 20

// stateWithLog is stateOf a copy of the file with its log, which would change by being read.
func stateWithLog(path string) (state leftState, err error) {
	if size := sizeOf(path) + sizeOf(path+"-wal"); size > maxLeftCopy {
		return leftEmpty, errors.New("what its log has was not looked at, since it is large")
	}
	dir, err := os.MkdirTemp("", "postern-")
	if err != nil {
		return leftEmpty, err
	}
	defer os.RemoveAll(dir)
	beside := filepath.Join(dir, FileName)
	for _, end := range []string{"", "-wal"} {
		if err := copyAside(path+end, beside+end); err != nil {
			return leftEmpty, err
		}
	}
	conn, err := sqlite.Open(beside)
	if err != nil {
		return leftEmpty, err
	}
	return stateOf(conn)
}

// copyAside makes a copy of a file of the data directory for us alone.
func copyAside(from, to string) error {
	in, err := openFile(from, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// leftState is what a file has in it.
type leftState uint8

const (
	leftEmpty  leftState = iota // neither mail nor accounts
	leftFilled                  // and it has not been moved
	leftMoved                   // it has, or it is an unfinished copy: whatever it has is somewhere else
)

// stateOf reads a file of any version, and closes it.
func stateOf(conn *sqlite.Conn) (leftState, error) {
	defer conn.Close()
	app, _, err := conn.Int("PRAGMA application_id")
	if err != nil {
		return leftEmpty, err
	}
	has := map[string]bool{}
	tables, err := list(conn, text, "SELECT name FROM sqlite_schema WHERE type = 'table'")
	for _, name := range tables {
		has[name] = true
	}
	if err == nil && app != applicationID && len(tables) > 0 {
		err = errForeign
	}
	if err == nil && has["store_move"] {
		var m moveState
		if m, err = readMove(conn); m.state == moveGone || m.state == moveArriving {
			return leftMoved, err
		}
	}
	for _, name := range []string{"message", "user"} {
		if err != nil || !has[name] {
			continue
		}
		var some bool
		if _, some, err = conn.Int("SELECT 1 FROM " + name + " LIMIT 1"); some {
			return leftFilled, err
		}
	}
	return leftEmpty, err
}
