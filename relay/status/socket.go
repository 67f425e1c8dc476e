//go:build unix

package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the socket in the data directory.
const SocketName = "postern.sock"

// Bounds of one answer.
const (
	answerTime = 5 * time.Second
	maxAnswer  = 4 << 20 // octets
	maxPath    = 100     // octets of a path that every system takes for a socket; the least is 103
)

// ErrSilent: the daemon runs, or ran, and its socket is there, but it does not answer.
var ErrSilent = errors.New("postern does not answer")

// Listen makes the socket: its owner and root may connect. One that a former life left is replaced, so the caller must
// be the only daemon in dir.
func Listen(dir string) (net.Listener, error) {
	path, release, err := short(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		release()
		return nil, err
	}
	// On Linux a socket file has the mode of the socket, so that there is no moment in which others may connect.
	conf := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) })
	}}
	l, err := conf.Listen(context.Background(), "unix", path)
	if err != nil {
		release()
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	socket := &listener{l, path, release}
	if err := errors.Join(os.Chmod(path, 0o600), giveTo(path, dir)); err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}

// giveTo gives a socket that root made to the owner of the directory.
func giveTo(path, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}

// listener removes its file when it closes.
type listener struct {
	net.Listener
	path    string
	release func()
}

// Close implements net.Listener.
func (l *listener) Close() error {
	defer l.release()
	return errors.Join(os.Remove(l.path), l.Listener.Close())
}

// short is the path of the socket, by way of an open directory where it is too long for an address.
func short(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, SocketName)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	path = fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), SocketName)
	return path, func() { d.Close() }, nil
}

// Serve answers each connection with a Report, one after the other, until ctx ends. It closes l.
func Serve(ctx context.Context, l net.Listener, report func(context.Context) *Report) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			answer(ctx, c, report)
		case ctx.Err() != nil:
			return
		default: // too many files are open, for now
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func answer(ctx context.Context, c net.Conn, report func(context.Context) *Report) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = json.NewEncoder(c).Encode(report(ctx)) // whoever asked has left
}

// Ask reads the Report of the daemon that uses dir. Errors: fs.ErrNotExist there is no socket, syscall.ECONNREFUSED one
// that nobody serves, ErrSilent.
func Ask(ctx context.Context, dir string) (*Report, error) {
	path, release, err := short(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, 2*answerTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var r Report
	if err := json.NewDecoder(io.LimitReader(c, maxAnswer)).Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSilent, err)
	}
	return &r, nil
}
