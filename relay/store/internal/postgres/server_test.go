//go:build unix

package postgres

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const bin = "/usr/lib/postgresql/15/bin"

var (
	theServer   *testServer
	startServer sync.Once
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theServer != nil {
		theServer.stop()
	}
	os.Exit(code)
}

// testServer is a PostgreSQL of the tests.
type testServer struct {
	dir  string
	port int
	cmd  *exec.Cmd
	as   *syscall.SysProcAttr
	conf []string
}

func server(t testing.TB) *testServer {
	t.Helper()
	startServer.Do(func() {
		theServer = newServer(t, tempDir(t))
	})
	if theServer == nil {
		t.Skip("there is no PostgreSQL")
	}
	return theServer
}

// tempDir is a directory that others may enter, and of a short name, for the socket in it.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-pg-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newServer makes a cluster and starts it.
func newServer(t testing.TB, dir string, conf ...string) *testServer {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
		t.Skipf("PostgreSQL is not installed: apt-get install postgresql: %v", err)
	}
	s := &testServer{dir: dir, conf: conf, as: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	if os.Geteuid() == 0 { // the server refuses to be root
		u, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	s.own(t, dir)
	s.command(t, "initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-N", "--no-locale",
		"-E", "UTF8")
	s.start(t)
	return s
}

// own gives a directory to the user of the server.
func (s *testServer) own(t testing.TB, dir string) {
	t.Helper()
	if s.as.Credential == nil {
		return
	}
	if err := os.Chown(dir, int(s.as.Credential.Uid), int(s.as.Credential.Gid)); err != nil {
		t.Fatal(err)
	}
}

func (s *testServer) command(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.as
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// start runs the server and waits until it answers.
func (s *testServer) start(t testing.TB) {
	t.Helper()
	if s.port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	args := []string{"-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, c := range append([]string{"listen_addresses=127.0.0.1", "fsync=off", "max_connections=20",
		"logging_collector=off"}, s.conf...) {
		args = append(args, "-c", c)
	}
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), args...)
	s.cmd.Dir, s.cmd.SysProcAttr = s.dir, s.as
	said, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	var log strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&log, lines.Text())
		if strings.Contains(lines.Text(), "ready to accept") {
			go io.Copy(io.Discard, said)
			return
		}
	}
	s.stop()
	t.Fatalf("PostgreSQL did not start:\n%s", log.String())
}

func (s *testServer) stop() {
	s.halt(syscall.SIGQUIT)
	os.RemoveAll(s.dir)
}

func (s *testServer) halt(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
}

func (s *testServer) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port)
}

// open connects to the server's database.
func open(t testing.TB, cfg Config) *Conn {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = server(t).url()
	}
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
