package smtp

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"postern/internal/errno"
)

// pipe returns the two ends of a connection in memory that holds at most size octets on their way in each direction, as
// a socket does, but the same number on every machine. It also works inside a testing/synctest bubble. Closing an end
// lets the other one read what was sent before; nothing that is sent to a closed end arrives.
func pipe(size int) (client, server net.Conn) {
	there, back := newLane(size), newLane(size)
	return &pipeEnd{in: back, out: there}, &pipeEnd{in: there, out: back}
}

type pipeEnd struct{ in, out *lane }

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.write(b) }

func (p *pipeEnd) Close() error {
	p.in.close(true)
	p.out.close(false)
	return nil
}

// SetLinger makes Close a reset, as 0 does with a socket: what the other side has not read is lost.
func (p *pipeEnd) SetLinger(int) error {
	p.in.reset()
	p.out.reset()
	return nil
}

func (p *pipeEnd) SetDeadline(t time.Time) error {
	p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipeEnd) SetReadDeadline(t time.Time) error  { p.in.reader.set(t); return nil }
func (p *pipeEnd) SetWriteDeadline(t time.Time) error { p.out.writer.set(t); return nil }
func (p *pipeEnd) LocalAddr() net.Addr                { return pipeAddr{} }
func (p *pipeEnd) RemoteAddr() net.Addr               { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// lane is one direction.
type lane struct {
	size           int
	reader, writer deadline

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond
	buf      []byte
	finished bool // the writer has closed
	deaf     bool // the reader has closed
	torn     bool // by a reset
}

func newLane(size int) *lane {
	l := &lane{size: size}
	l.changed = sync.NewCond(&l.mu)
	l.reader.lane, l.writer.lane = l, l
	return l
}

func (l *lane) close(byReader bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if byReader {
		l.deaf, l.buf = true, nil
	} else {
		l.finished = true
	}
	l.changed.Broadcast()
}

func (l *lane) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.torn, l.buf = true, nil
	l.changed.Broadcast()
}

func (l *lane) read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.deaf:
			return 0, io.ErrClosedPipe
		case l.torn:
			return 0, errno.Reset
		case l.reader.over:
			return 0, os.ErrDeadlineExceeded
		case len(l.buf) > 0 || len(b) == 0:
			n := copy(b, l.buf)
			l.buf = l.buf[n:]
			l.changed.Broadcast()
			return n, nil
		case l.finished:
			return 0, io.EOF
		}
		l.changed.Wait()
	}
}

func (l *lane) write(b []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch free := l.size - len(l.buf); {
		case l.torn:
			return n, errno.Reset
		case l.finished || l.deaf:
			return n, io.ErrClosedPipe
		case l.writer.over:
			return n, os.ErrDeadlineExceeded
		case len(b) == 0:
			return n, nil
		case free > 0:
			m := min(free, len(b))
			l.buf = append(l.buf, b[:m]...)
			n, b = n+m, b[m:]
			l.changed.Broadcast()
		default:
			l.changed.Wait()
		}
	}
}

// deadline wakes whoever waits in its lane when it is over. Guarded by lane.mu.
type deadline struct {
	lane  *lane
	timer *time.Timer
	turn  int // of set: a timer of before says nothing
	over  bool
}

func (d *deadline) set(t time.Time) {
	l := d.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
	}
	d.over = !t.IsZero() && time.Until(t) <= 0
	if !t.IsZero() && !d.over {
		turn := d.turn
		d.timer = time.AfterFunc(time.Until(t), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if turn == d.turn {
				d.over = true
				l.changed.Broadcast()
			}
		})
	}
	l.changed.Broadcast()
}
