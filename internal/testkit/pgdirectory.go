package testkit

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/internal/disk"
	"postern/internal/filelock"
	"postern/internal/pgserver"
)

const (
	pgPrefix = "postern-postgres-"
	pgLock   = "lock" // whoever uses a directory holds it

	memory     = "/dev/shm" // Linux's file system in memory
	memoryFree = 2 << 30    // octets that it must have left for a server
)

// inMemory returns a directory in memory for a server with many small databases, which are made and dropped there in a
// tenth of the time; "", for the usual one, where there is little.
func inMemory() string {
	if room, err := disk.Of(memory); err != nil || room.Free < memoryFree {
		return ""
	}
	return memory
}

// pgInit are initdb's options. Small segments of WAL make small copies.
var pgInit = []string{"--username=" + pgAdmin, "--auth=scram-sha-256", "--wal-segsize=1"}

// pgOrder are those of versions that have them: texts are not in the order of their octets then, as at most users.
var pgOrder = []string{"--locale-provider=icu", "--icu-locale=en-US"}

const pgOrderSince = 15

// pgSetup is what a server begins with, a statement a line.
const pgSetup = `CREATE ROLE ` + PGUser + ` LOGIN PASSWORD '` + PGPassword + `'
CREATE DATABASE ` + PGDatabase + ` OWNER ` + PGUser + `
`

// pgTool returns the path of one of PostgreSQL's programs.
func pgTool(t testing.TB, name string) string {
	t.Helper()
	path, err := pgserver.Tool(name)
	if err != nil {
		Skipf(t, "%s is missing: run scripts/test-tools", name)
	}
	return path
}

// pgDirectory is the place of a server: whoever uses it holds a lock, by which the next test knows what was left by one
// that died.
type pgDirectory struct {
	*pgserver.Directory
	lock *os.File
}

func newPGDirectory(t testing.TB, parent string) *pgDirectory {
	t.Helper()
	sweep()
	made, err := pgserver.NewDirectory(parent, pgPrefix) // not t.TempDir: a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	d := &pgDirectory{Directory: made}
	if d.lock, err = lockFile(filepath.Join(d.Path, "new")); err == nil {
		err = os.Rename(d.lock.Name(), filepath.Join(d.Path, pgLock))
	}
	if err != nil {
		d.remove()
		t.Fatal(err)
	}
	return d
}

// sweep removes what tests left that were killed.
func sweep() {
	var locks []string
	for _, parent := range []string{os.TempDir(), memory} {
		found, _ := filepath.Glob(filepath.Join(parent, pgPrefix+"*", pgLock))
		locks = append(locks, found...)
	}
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if filelock.Try(f) == nil {
			(&pgDirectory{Directory: &pgserver.Directory{Path: filepath.Dir(path)}, lock: f}).remove()
		} else {
			f.Close()
		}
	}
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fill makes the data that a server begins with.
func (d *pgDirectory) fill(t testing.TB, conf string) error {
	initdb, postgres := pgTool(t, "initdb"), pgTool(t, "postgres")
	version, err := exec.Command(initdb, "--version").Output()
	if err != nil {
		return err
	}
	args := pgInit
	if pgMajor(string(version)) >= pgOrderSince {
		args = slices.Concat(args, pgOrder)
	}
	hash := sha256.Sum256([]byte(fmt.Sprint(initdb, string(version), args, pgSetup, pgAdminPassword)))
	path := filepath.Join(os.TempDir(), fmt.Sprintf("%s%x-%d.tar", pgPrefix, hash[:6], os.Geteuid()))
	lock, err := lockFile(path + ".lock") // other test binaries make it, too
	if err != nil {
		return err
	}
	defer filelock.Close(lock)
	err = d.unpack(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = d.initdb(args, postgres); err == nil {
			err = d.pack(path)
		}
	}
	if err == nil {
		err = d.Configure(conf)
	}
	return err
}

// pgMajor returns the 15 of "initdb (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 0 of what is no such line.
func pgMajor(line string) int {
	_, after, _ := strings.Cut(line, "(PostgreSQL) ")
	n, _ := strconv.Atoi(after[:len(after)-len(strings.TrimLeft(after, "0123456789"))])
	return n
}

func (d *pgDirectory) initdb(args []string, postgres string) error {
	password := filepath.Join(d.Path, "password")
	if err := d.Write(password, strings.NewReader(pgAdminPassword)); err != nil {
		return err
	}
	if err := d.Init(append(args, "--pwfile="+password)...); err != nil {
		return err
	}
	return d.Run(pgSetup, postgres, "--single", "-D", d.Data(), "postgres")
}

// pack keeps the data, as one file: what cleans temporary directories takes all of it or nothing.
func (d *pgDirectory) pack(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), path)
		}
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	w := tar.NewWriter(f)
	return errors.Join(w.AddFS(os.DirFS(d.Data())), w.Close())
}

func (d *pgDirectory) unpack(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if about, err := f.Stat(); err != nil {
		return err
	} else if !isOurs(about) {
		return fmt.Errorf("%s is somebody else's: remove it", path)
	}
	if err := d.Mkdir(d.Data()); err != nil {
		return err
	}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		path := filepath.Join(d.Data(), h.Name)
		if h.Typeflag == tar.TypeDir {
			err = d.Mkdir(path)
		} else {
			err = d.Write(path, r)
		}
		if err != nil {
			return err
		}
	}
}

// remove removes the lock last: what is left of a directory when it is killed, the next sweep finds.
func (d *pgDirectory) remove() {
	removeSegment(d.Data())
	entries, _ := os.ReadDir(d.Path)
	for _, e := range entries {
		if e.Name() != pgLock {
			os.RemoveAll(filepath.Join(d.Path, e.Name()))
		}
	}
	os.RemoveAll(d.Path)
	if d.lock != nil {
		filelock.Close(d.lock)
	}
}
