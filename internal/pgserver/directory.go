// Package pgserver finds the PostgreSQL that is installed on this machine and runs private servers of it: for the demo,
// for measurements and for tests.
package pgserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Directory is the place of a server: its data and its socket. PostgreSQL refuses to run as root, so that for root it
// is another user's.
type Directory struct {
	Path  string
	Owner *credential // nil: we
}

// NewDirectory makes one in parent; "": in the one for temporary files. Its path is short, as that of a socket has to
// be.
func NewDirectory(parent, pattern string) (*Directory, error) {
	d := new(Directory)
	var err error
	if os.Geteuid() == 0 {
		if d.Owner, err = unprivileged(); err != nil {
			return nil, err
		}
	}
	if d.Path, err = os.MkdirTemp(parent, pattern); err != nil {
		return nil, err
	}
	if err := d.give(d.Path); err != nil {
		return nil, errors.Join(err, os.Remove(d.Path))
	}
	return d, nil
}

// Data is where the server has its files.
func (d *Directory) Data() string { return filepath.Join(d.Path, "data") }

// MakeData makes Data, empty.
func (d *Directory) MakeData() error { return d.Mkdir(d.Data()) }

// Mkdir makes a directory, and what is missing above it, that only the server may use.
func (d *Directory) Mkdir(path string) error {
	return errors.Join(os.MkdirAll(path, 0o700), d.give(path))
}

func (d *Directory) give(path string) error {
	if d.Owner == nil {
		return nil
	}
	return os.Lchown(path, int(d.Owner.Uid), int(d.Owner.Gid))
}

// Write makes a file that only the server may read.
func (d *Directory) Write(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close(), d.give(path))
}

// Configure adds to what the server's configuration says; later lines win.
func (d *Directory) Configure(conf string) error { return d.Append("postgresql.conf", conf) }

// Append adds to a file of the server's.
func (d *Directory) Append(name, text string) error {
	f, err := os.OpenFile(filepath.Join(d.Data(), name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Command is one of PostgreSQL's programs, as the owner.
func (d *Directory) Command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = d.Path
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // nothing of PGHOST and its like
	runAs(cmd, d.Owner)
	return cmd
}

// Run runs one of PostgreSQL's programs to its end.
func (d *Directory) Run(stdin, path string, args ...string) error {
	cmd := d.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: PostgreSQL's user must be let into TMPDIR, %s", err, os.TempDir())
	} else if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

// Init makes the data of a new server, with options of initdb.
func (d *Directory) Init(options ...string) error {
	initdb, err := Tool("initdb")
	if err != nil {
		return err
	}
	return d.Run("", initdb, slices.Concat(options, []string{"--pgdata=" + d.Data(), "--encoding=UTF8", "--locale=C",
		"--no-sync"})...)
}
