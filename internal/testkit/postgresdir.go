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

// pgEndSignal ends a server at once, with all its processes and its shared memory ("immediate").
const pgEndSignal = syscall.SIGQUIT

// pgConf keeps fsync as users have it: the relay looks at it. WAL is kept for standbys that come later; nothing is left
// in /dev/shm by a server that is killed.
const pgConf = `
listen_addresses = '` + pgHost + `'
port = %d
unix_socket_directories = '%s'
max_connections = 200
shared_buffers = 64MB
wal_keep_size = 64MB
max_wal_size = 512MB
dynamic_shared_memory_type = mmap
jit = off
log_line_prefix = '%%m [%%p] %%q%%u@%%d '
lc_messages = 'C'
`

// pgInit are initdb's options. Small segments of WAL make small copies.
var pgInit = []string{"--username=" + pgAdmin, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
	"--wal-segsize=1", "--no-sync"}

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

func newPGDirectory(t testing.TB) *pgDirectory {
	t.Helper()
	sweep()
	d := new(pgDirectory)
	if os.Geteuid() == 0 {
		d.owner = credential(t, "postgres")
	}
	var err error
	if d.path, err = os.MkdirTemp("", "postern-postgres-"); err != nil { // not t.TempDir: a socket's path is short
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
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), "postern-postgres-*", "lock"))
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
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w (may the user postgres enter %s?)\n%s", filepath.Base(path), err, os.TempDir(), out)
	}
	return nil
}

// configure adds what a server's configuration says; later lines win.
func (d *pgDirectory) configure(conf string) error {
	f, err := os.OpenFile(filepath.Join(d.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(conf)
	return errors.Join(err, f.Close())
}

// fill makes the data that a server begins with.
func (d *pgDirectory) fill(t testing.TB, port int) error {
	initdb, postgres := pgTool(t, "initdb"), pgTool(t, "postgres")
	help, err := exec.Command(initdb, "--version").Output()
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(fmt.Sprint(initdb, string(help), pgInit, pgSetup, pgAdminPassword)))
	path := filepath.Join(os.TempDir(), fmt.Sprintf("postern-postgres-%x-%d.tar", hash[:6], os.Geteuid()))
	lock, err := lockFile(path + ".lock") // other test binaries make it, too
	if err != nil {
		return err
	}
	defer lock.Close()
	err = d.unpack(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = d.initdb(initdb, postgres); err == nil {
			err = d.pack(path)
		}
	}
	if err == nil {
		err = d.configure(fmt.Sprintf(pgConf, port, d.path))
	}
	return err
}

func (d *pgDirectory) initdb(initdb, postgres string) error {
	password := filepath.Join(d.path, "password")
	err := os.WriteFile(password, []byte(pgAdminPassword), 0o600)
	if err = errors.Join(err, d.give(password)); err != nil {
		return err
	}
	args := append(slices.Clone(pgInit), "--pgdata="+d.data(), "--pwfile="+password)
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
		if err := d.write(filepath.Join(d.data(), h.Name), h, r); err != nil {
			return err
		}
	}
}

func (d *pgDirectory) write(path string, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return errors.Join(os.MkdirAll(path, 0o700), d.give(path))
	}
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
