package smtp

import (
	"context"
	"net"
	"sync"
	"time"
)

// deadlines bound each wait for one connection. A goroutine that writes and one that reads may use them, and whoever
// ends a Send.
type deadlines struct {
	nc       net.Conn
	timeouts *Timeouts
	ctx      context.Context // of the Send; nil: nobody sends

	mu        sync.Mutex // guards what follows
	cut       bool       // it has ended
	committed bool       // every octet of the message is written, its reply is due
	uploading bool       // a goroutine writes: reading has no deadline of its own until it is done
	stopped   bool       // nothing more is to be written
	graceEnd  time.Time
	lingerEnd time.Time // after a write error: how long the reason is waited for
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

func (t *deadlines) set(d time.Duration) {
	t.read(d)
	t.write(d)
}

func (t *deadlines) read(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readLocked(d)
}

func (t *deadlines) readLocked(d time.Duration) {
	switch {
	case t.cut && t.committed:
		t.nc.SetReadDeadline(t.graceEnd)
	case t.cut:
		t.nc.SetReadDeadline(past)
	case !t.lingerEnd.IsZero():
		t.nc.SetReadDeadline(t.lingerEnd)
	case t.uploading:
		t.nc.SetReadDeadline(time.Time{})
	default:
		t.nc.SetReadDeadline(time.Now().Add(d))
	}
}

// write is for what is written next. A context that ended unnoticed, while the process stood still, ends the
// connection before anything more goes out.
func (t *deadlines) write(d time.Duration) {
	t.ended()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut || t.stopped {
		t.nc.SetWriteDeadline(past)
		return
	}
	t.nc.SetWriteDeadline(time.Now().Add(d))
}

// begin prepares for a transaction.
func (t *deadlines) begin() {
	t.mu.Lock()
	t.committed = false
	t.mu.Unlock()
}

// commit notes that the message is out of our hands: from now on a cancelled context leaves time for the reply.
func (t *deadlines) commit() {
	t.mu.Lock()
	t.committed = true
	t.mu.Unlock()
}

// linger leaves the upstream a moment to say why it does not take what we write.
func (t *deadlines) linger() {
	t.mu.Lock()
	t.lingerEnd = time.Now().Add(lingerTime)
	t.mu.Unlock()
}

func (t *deadlines) startUpload() {
	t.mu.Lock()
	t.uploading = true
	t.mu.Unlock()
}

// uploaded ends the upload and gives the reader, who may be waiting already, the deadline that holds from here.
func (t *deadlines) uploaded(complete bool, err error, ours bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uploading, t.committed = false, complete
	switch {
	case err == nil:
	case ours:
		t.lingerEnd = past
	default:
		t.lingerEnd = time.Now().Add(lingerTime)
	}
	t.readLocked(t.timeouts.DataDone)
}

// stopWriting ends a write that is under way. TLS does not survive it: the connection is broken.
func (t *deadlines) stopWriting() {
	t.mu.Lock()
	t.stopped = true
	t.nc.SetWriteDeadline(past)
	t.mu.Unlock()
}

// watch interrupts the connection when ctx ends. What it returns ends the watch, and waits for an interruption under
// way: it must not hit whoever has the connection next.
func (t *deadlines) watch(ctx context.Context) (release func()) {
	t.ctx = ctx
	done := make(chan struct{})
	stop := afterFunc(ctx, func() {
		t.interrupt()
		close(done)
	})
	return func() {
		if !stop() {
			<-done
		}
		t.ctx = nil
	}
}

// afterFunc is context.AfterFunc, which asks also those for a channel that do without.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	if own, ok := ctx.(interface {
		AfterFunc(f func()) (stop func() bool)
	}); ok {
		return own.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

// interrupt is called when the context of a Send ends. Before the end of the message everything stops at once.
func (t *deadlines) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = true
	t.graceEnd = time.Now().Add(t.timeouts.Drain)
	if t.committed {
		t.nc.SetReadDeadline(t.graceEnd)
		return
	}
	t.nc.SetDeadline(past)
}

// ended is interrupted, and looks whether the context has ended unnoticed.
func (t *deadlines) ended() bool {
	if t.ctx != nil && t.ctx.Err() != nil {
		t.interrupt()
	}
	return t.interrupted()
}

func (t *deadlines) interrupted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cut
}
