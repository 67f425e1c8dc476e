package pgserver

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/child"
)

const (
	// EndSignal ends a server at once, with all its processes and its shared memory ("immediate").
	EndSignal = syscall.SIGQUIT

	startLimit = time.Minute
	endLimit   = 20 * time.Second
	role       = "postern"
)

// Server is a running server that nobody but its owner and root reaches, by a socket in its directory. It ends with
// this process. Its settings are those that it is delivered with, so that what it has committed is on disk.
type Server struct {
	dir     *Directory
	process *child.Process
}

// conf: a server that is killed leaves nothing in /dev/shm.
const conf = `
listen_addresses = ''
unix_socket_directories = '%s'
dynamic_shared_memory_type = mmap
lc_messages = 'C'
`

// Start starts an empty server with its files in a directory in parent; "": in the one for temporary files. Close ends
// it and removes them.
func Start(ctx context.Context, parent string) (*Server, error) {
	postgres, err := Tool("postgres")
	if err != nil {
		return nil, err
	}
	dir, err := NewDirectory(parent, "postern-pgserver-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	if err := s.start(ctx, postgres); err != nil {
		s.Close()
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, postgres string) error {
	if err := s.dir.Init("--username="+role, "--auth=trust"); err != nil {
		return err
	}
	if err := s.dir.Configure(fmt.Sprintf(conf, s.dir.Path)); err != nil {
		return err
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.dir.Command(postgres, "-D", s.dir.Data())
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = child.Start(cmd, EndSignal); err != nil {
		return err
	}
	return s.ready(ctx)
}

func (s *Server) log() string { return filepath.Join(s.dir.Path, "log") }

// ready waits until it takes connections.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgconn.Connect(ctx, s.URL())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
			continue
		case <-s.process.Done():
		case <-ctx.Done():
		}
		text, _ := os.ReadFile(s.log())
		return fmt.Errorf("%w\n%s", err, text)
	}
}

// URL returns the address of its database.
func (s *Server) URL() string {
	u := url.URL{Scheme: "postgres", User: url.User(role), Path: "/postgres",
		RawQuery: url.Values{"host": {s.dir.Path}, "sslmode": {"disable"}}.Encode()}
	return u.String()
}

// Pid returns the process id of the server's first process.
func (s *Server) Pid() int { return s.process.Pid() }

// Close ends it and removes its files.
func (s *Server) Close() {
	if s.process != nil {
		s.process.End(EndSignal, endLimit)
	}
	os.RemoveAll(s.dir.Path)
}
