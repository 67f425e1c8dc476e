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
	"time"
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
	conf := net.ListenConfig{Control: forUs}
	l, err := conf.Listen(context.Background(), "unix", path)
	if err != nil {
		release()
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	socket := &listener{l, path, release}
	if err := giveTo(path, dir); err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
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

// Ask reads the Report of the daemon that uses dir. Errors: fs.ErrNotExist there is no socket, errno.Refused one
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
