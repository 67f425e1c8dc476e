package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"postern/mail"
)

// ErrCut is returned by a Transfer whose message did not come to its end: the connection was lost, the
// client was too slow or gave up, or the server stops.
var ErrCut = errors.New("message cut short")

// errUnfinished ends a chunked transfer whose session answered before the last chunk.
var errUnfinished = errors.New("message answered before its end")

// Transfer is the content of one message on its way in, from DATA without dot-stuffing or from the
// chunks of BDAT. It is an io.Reader and an io.WriterTo, for the goroutine of the connection and
// during Session.Data only. io.EOF comes at the clean end and nowhere else; ErrCut when there is no
// end; a *mail.Error, after the real end was read, when the message cannot be accepted: 552 5.3.4 for
// its size, 550 5.6.0 for bare CR or LF, NUL, or, without Options.LongLines, a line of more than 998 octets.
// Every line that is read before io.EOF ends with CRLF; one that a last chunk leaves open is closed.
type Transfer struct {
	c       *Conn
	chunked bool
	stuffed stuffing // DATA
	left    int64    // BDAT: octets of this chunk still to come
	last    bool     // BDAT: this is the last chunk

	lines  lines
	bad    bool   // refused, whatever follows
	run    []byte // content found and not yet read; it lies in the buffer of the connection
	err    error  // how it ended
	cause  error  // behind ErrCut: what ends the connection, nil if a pending command goes on
	closed bool   // the session has answered

	octets int64         // received
	waited time.Duration // for them
}

// Size is the number of octets so far, as RFC 1870 counts them.
func (t *Transfer) Size() int64 { return t.lines.size }

// EightBit reports whether an octet above 0x7f was seen so far.
func (t *Transfer) EightBit() bool { return t.lines.eightBit }

// LongLines reports whether a line of more than 998 octets was seen so far.
func (t *Transfer) LongLines() bool { return t.lines.long }

// Chunked reports whether the message comes by BDAT.
func (t *Transfer) Chunked() bool { return t.chunked }

// Read implements io.Reader.
func (t *Transfer) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(t.run) == 0 {
		if err := t.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.run)
	t.run = t.run[n:]
	return n, nil
}

// WriteTo implements io.WriterTo. The error is w's, or as of Read without io.EOF.
func (t *Transfer) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for {
		if len(t.run) == 0 {
			if err := t.next(); err == io.EOF {
				return written, nil
			} else if err != nil {
				return written, err
			}
		}
		n, err := w.Write(t.run)
		written += int64(n)
		t.run = t.run[n:]
		if err != nil {
			return written, err
		}
	}
}

// newTransfer completes a transfer of this connection.
func (c *Conn) newTransfer(t Transfer) *Transfer {
	t.c = c
	t.lines.takeLong = c.opt.LongLines
	return &t
}

// drain reads to the end, of the chunk at least, for a session that did not.
func (t *Transfer) drain() {
	t.closed = true
	for t.run = nil; t.err == nil; t.run = nil {
		t.next()
	}
}

// next finds the next run of content. Once the message is known to be refused its content is read but
// not handed on.
func (t *Transfer) next() error {
	for t.err == nil {
		run := t.nextRun()
		t.lines.add(run)
		t.bad = t.bad || t.lines.size > t.c.opt.MaxMessageSize || t.lines.bad()
		if len(run) > 0 && !t.bad {
			t.run = run
			return nil
		}
	}
	return t.err
}

// nextRun returns octets of content, none if it read or ended instead.
func (t *Transfer) nextRun() []byte {
	b := t.c.buffered()
	switch {
	case t.chunked && t.left == 0:
		return t.endOfChunk()
	case len(b) == 0:
	case t.chunked:
		run := b[:min(int64(len(b)), t.left)]
		t.c.r += len(run)
		t.left -= int64(len(run))
		return run
	default:
		run, used, end := t.stuffed.next(b)
		t.c.r += used
		if end {
			t.end()
		}
		if used > 0 {
			return run
		}
	}
	if err := t.fill(); err != nil {
		t.cutBy(err)
	}
	return nil
}

// end ends a message that was read to its end.
func (t *Transfer) end() {
	switch {
	case t.lines.size > t.c.opt.MaxMessageSize:
		t.err = mail.Refuse(t.c.tooBig(), nil)
	case t.lines.bad():
		t.err = mail.Refuse(t.lines.fault.reply(), nil)
	default:
		t.err = io.EOF
	}
}

// cutBy ends a message that has no end. A nil cause leaves the connection alive.
func (t *Transfer) cutBy(cause error) {
	t.cause = cause
	t.err = ErrCut
	if cause != nil {
		t.err = fmt.Errorf("%w: %w", ErrCut, cause)
	}
}

// fill reads more, for as long as the silence and the average rate allow. Only the time spent waiting
// counts, not the session's.
func (t *Transfer) fill() error {
	if t.octets > t.swallowed() {
		return refuse(ReasonProtocol, t.c.tooBig(), "the client went on sending %d octets into a refused message", t.octets)
	}
	before, start := len(t.c.buffered()), time.Now()
	patience := t.patience()
	err := t.c.fill(start.Add(patience))
	t.waited += time.Since(start)
	if err == nil {
		t.octets += int64(len(t.c.buffered()) - before)
	}
	if err != nil && isTimeout(err) {
		return t.tooSlow(patience).because(err)
	}
	return err
}

// patience is how long to wait for more: DataTimeout, or less if the average rate is low, which is
// looked at after the first DataTimeout.
func (t *Transfer) patience() time.Duration {
	silence := t.c.opt.DataTimeout
	if t.c.opt.MinDataRate <= 0 {
		return silence
	}
	earned := time.Duration(float64(t.octets) / float64(t.c.opt.MinDataRate) * float64(time.Second))
	return min(silence, silence+earned-t.waited)
}

func (t *Transfer) tooSlow(patience time.Duration) *refusal {
	if patience < t.c.opt.DataTimeout {
		return refuse(ReasonTimeout, mail.R(421, "4.4.2", "too slow, closing; send the message again"),
			"the client sent %d octets in %s, less than min_data_rate asks for", t.octets, t.waited.Round(time.Second))
	}
	return refuse(ReasonTimeout, mail.R(421, "4.4.2", "silent for %s inside a message, closing; send it again", span(t.c.opt.DataTimeout)),
		"the client was silent for %s inside a message; see data_timeout", t.c.opt.DataTimeout)
}

// swallowed is how much of a message that is too big we read in search of its end, so that the client
// learns why.
func (t *Transfer) swallowed() int64 { return 4*t.c.opt.MaxMessageSize + 64<<20 }

// endOfChunk ends the message behind its last chunk, or answers the chunk and goes to the next.
func (t *Transfer) endOfChunk() []byte {
	switch {
	case t.last && !t.bad && t.lines.open():
		t.lines.size -= int64(len(lineEnd)) // the client did not send it
		return lineEnd
	case t.last, t.bad: // refused, it is the answer to this chunk and there is no message any more
		t.end()
	case t.closed:
		t.err = errUnfinished
	case t.patience() <= 0:
		t.cutBy(t.tooSlow(0))
	default:
		t.c.send(mail.R(250, "2.0.0", "chunk received, %d octets so far", t.lines.size))
		start := time.Now()
		t.nextChunk()
		t.waited += time.Since(start)
	}
	return nil
}

var lineEnd = []byte("\r\n")

// nextChunk reads commands up to the next BDAT. NOOP changes nothing; any other command, RSET first of
// all, gives the message up and is run afterwards.
func (t *Transfer) nextChunk() {
	for {
		line, err := t.c.nextLine()
		verb, arg := splitCommand(line)
		n, last, ok := parseChunk(arg)
		busy := t.c.idleTurns < maxIdleTurns
		switch {
		case err == nil && verb == "BDAT" && ok && (n > 0 || last || busy):
			t.left, t.last = n, last
		case err == nil && verb == "NOOP" && clean(line) && busy:
			t.c.idleTurns++
			t.c.noop(arg)
			continue
		default:
			t.c.pending = &pendingLine{line: line, err: err}
			t.cutBy(nil)
		}
		if n == 0 {
			t.c.idleTurns++
		}
		return
	}
}

// parseChunk reads the argument of BDAT (RFC 3030 §2).
func parseChunk(arg string) (n int64, last, ok bool) {
	size, end, found := strings.Cut(arg, " ")
	n, ok = parseCount(size)
	last = strings.EqualFold(strings.TrimLeft(end, " "), "LAST")
	return n, last, ok && last == found
}
