package testkit

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const (
	pgPrefix = "postern-postgres-"

	memory     = "/dev/shm" // Linux's file system in memory
	memoryFree = 2 << 30    // octets that it must have left for a server
)

// inMemory returns a directory in memory for a server with many small databases, which are made and dropped there in a
// tenth of the time; "", for the usual one, where there is little.
func inMemory() string {
	var about syscall.Statfs_t
	if syscall.Statfs(memory, &about) != nil || int64(about.Bavail)*about.Bsize < memoryFree {
		return ""
	}
	return memory
}

// pgInit are initdb's options. Small segments of WAL make small copies.
var pgInit = []string{"--username=" + pgAdmin, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
	"--wal-segsize=1", "--no-sync"}

// pgOrder are those of versions that have them: texts are not in the order of their octets then, as at most users.
var pgOrder = []string{"--locale-provider=icu", "--icu-locale=en-US"}

const pgOrderSince = 15

// pgSetup is what a server begins with, a statement a line.
const pgSetup = `CREATE ROLE ` + PGUser + ` LOGIN PASSWORD '` + PGPassword + `'
CREATE DATABASE ` + PGDatabase + ` OWNER ` + PGUser + `
`

// pgTool returns the path of one of PostgreSQL's programs, of its newest version: Debian has them where nobody looks.
func pgTool(t testing.TB, name string) string {
	t.Helper()
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	if len(paths) > 0 {
		return slices.MaxFunc(paths, func(a, b string) int { return version(a) - version(b) })
	}
	return Need(t, name)
}

// pgDirectory is the place of a server: its data and its socket. The server refuses to run as root, so that for root it
// is the user postgres's. Whoever uses it holds a lock, by which the next test knows what was left by one that died.
type pgDirectory struct {
	path  string
	owner *syscall.Credential // nil: we
	lock  *os.File
}

func newPGDirectory(t testing.TB, parent string) *pgDirectory {
	t.Helper()
	sweep()
	d := new(pgDirectory)
	if os.Geteuid() == 0 {
		d.owner = credential(t, "postgres")
	}
	var err error
	if d.path, err = os.MkdirTemp(parent, pgPrefix); err != nil { // not t.TempDir: a socket's path is short
		t.Fatal(err)
	}
	if d.lock, err = lockFile(filepath.Join(d.path, "new")); err == nil {
		err = os.Rename(d.lock.Name(), filepath.Join(d.path, "lock"))
	}
	if err == nil {
		err = d.give(d.path)
	}
	if err != nil {
		d.remove()
		t.Fatal(err)
	}
	return d
}

func credential(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		Skipf(t, "%v: run scripts/test-tools", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// sweep removes what tests left that were killed.
func sweep() {
	var locks []string
	for _, parent := range []string{os.TempDir(), memory} {
		found, _ := filepath.Glob(filepath.Join(parent, pgPrefix+"*", "lock"))
		locks = append(locks, found...)
	}
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			(&pgDirectory{path: filepath.Dir(path), lock: f}).remove()
		} else {
			f.Close()
		}
	}
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d *pgDirectory) data() string { return filepath.Join(d.path, "data") }

func (d *pgDirectory) give(path string) error {
	if d.owner == nil {
		return nil
	}
	return os.Lchown(path, int(d.owner.Uid), int(d.owner.Gid))
}

// command is one of PostgreSQL's programs, as the owner. It ends with the test binary.
func (d *pgDirectory) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = d.path
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // nothing of PGHOST and its like
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.owner, Pdeathsig: pgEndSignal, Setpgid: true}
	return cmd
}

// run runs one of PostgreSQL's programs to its end.
func (d *pgDirectory) run(stdin, path string, args ...string) error {
	cmd := d.command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: the user postgres must be let into TMPDIR, %s", err, os.TempDir())
	} else if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

// configure adds what a server's configuration says; later lines win.
func (d *pgDirectory) configure(conf string) error { return d.add("postgresql.conf", conf) }

func (d *pgDirectory) add(name, text string) error {
	f, err := os.OpenFile(filepath.Join(d.data(), name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
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
	defer lock.Close()
	err = d.unpack(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = d.initdb(args, initdb, postgres); err == nil {
			err = d.pack(path)
		}
	}
	if err == nil {
		err = d.configure(conf)
	}
	return err
}

// pgMajor returns the 15 of "initdb (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 0 of what is no such line.
func pgMajor(line string) int {
	_, after, _ := strings.Cut(line, "(PostgreSQL) ")
	n, _ := strconv.Atoi(after[:len(after)-len(strings.TrimLeft(after, "0123456789"))])
	return n
}

func (d *pgDirectory) initdb(args []string, initdb, postgres string) error {
	password := filepath.Join(d.path, "password")
	if err := d.write(password, strings.NewReader(pgAdminPassword)); err != nil {
		return err
	}
	args = slices.Concat(args, []string{"--pgdata=" + d.data(), "--pwfile=" + password})
	if err := d.run("", initdb, args...); err != nil {
		return err
	}
	return d.run(pgSetup, postgres, "--single", "-D", d.data(), "postgres")
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
	return errors.Join(w.AddFS(os.DirFS(d.data())), w.Close())
}

func (d *pgDirectory) unpack(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if about, err := f.Stat(); err != nil {
		return err
	} else if about.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is somebody else's: remove it", path)
	}
	if err := errors.Join(os.Mkdir(d.data(), 0o700), d.give(d.data())); err != nil {
		return err
	}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		path := filepath.Join(d.data(), h.Name)
		if h.Typeflag == tar.TypeDir {
			err = errors.Join(os.MkdirAll(path, 0o700), d.give(path))
		} else {
			err = d.write(path, r)
		}
		if err != nil {
			return err
		}
	}
}

// write makes a file that only the server may read.
func (d *pgDirectory) write(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close(), d.give(path))
}

func (d *pgDirectory) remove() {
	removeSegment(d.data())
	os.RemoveAll(d.path)
	if d.lock != nil {
		d.lock.Close()
	}
}
