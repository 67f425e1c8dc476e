package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"postern/mail"
)

// ErrCut is the error of a Transfer whose message did not come to its end: the connection was lost, the client was too
// slow or gave up, or the server stops.
var ErrCut = errors.New("message cut short")

// errUnfinished ends a chunked transfer whose session answered before the last chunk.
var errUnfinished = errors.New("message answered before its end")

// Transfer is the content of one incoming message, from DATA with dot-stuffing removed or from the chunks of BDAT. It
// is an io.Reader and an io.WriterTo, to be used only during Session.Data and on the connection's goroutine.
//
// It returns io.EOF only at the clean end, and ErrCut if there is none. If the message is unacceptable it reads to the
// real end and returns a *mail.Error: 552 5.3.4 for its size; 550 5.6.0 for a bare CR or LF, a NUL, or, without
// Options.LongLines, a line over 998 octets. Every line ends with CRLF; it is added if the last chunk lacks it. With
// Options.Appliance bare CR and LF become CRLF, unless that makes a line of a dot alone, which is refused with 550.
type Transfer struct {
	c       *Conn
	chunked bool
	stuffed stuffing // DATA
	left    int64    // BDAT: octets of this chunk still to come
	last    bool     // BDAT: this is the last chunk

	lines  lines
	ends   *lineEnds // nil: line ends are not repaired
	bad    bool      // refused whatever follows
	run    []byte    // content found but not yet read, in the connection's buffer
	err    error     // how it ended
	cause  error     // behind ErrCut: what ends the connection, nil if a pending command goes on
	closed bool      // the session has answered

	octets int64         // received
	waited time.Duration // to receive them
}

// Size is the number of octets so far, as RFC 1870 counts them.
func (t *Transfer) Size() int64 { return t.lines.size }

// EightBit reports whether an octet above 0x7f was seen so far.
func (t *Transfer) EightBit() bool { return t.lines.eightBit }

// LongLines reports whether a line of more than 998 octets was seen so far.
func (t *Transfer) LongLines() bool { return t.lines.long }

// RepairedLineEnds is how many bare CR and LF became CRLF so far; none without Options.Appliance.
func (t *Transfer) RepairedLineEnds() int64 {
	if t.ends == nil {
		return 0
	}
	return t.ends.repaired
}

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

// WriteTo implements io.WriterTo. It returns w's error, or Read's other than io.EOF.
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

// newTransfer prepares a transfer of this connection.
func (c *Conn) newTransfer(t Transfer) *Transfer {
	t.c = c
	t.lines.takeLong = c.opt.LongLines
	if c.opt.Appliance {
		t.ends = new(lineEnds)
	}
	return &t
}

// drain reads what the session left unread, to the end of the message or at least of the chunk.
func (t *Transfer) drain() {
	t.closed = true
	for t.run = nil; t.err == nil; t.run = nil {
		t.next()
	}
}

// next finds the next run of content. Once the message is refused its content is read but not returned.
func (t *Transfer) next() error {
	for t.err == nil {
		run := t.nextRun()
		if t.ends != nil {
			run = t.repair(run)
		}
		t.lines.add(run)
		t.bad = t.bad || t.lines.size > t.c.opt.MaxMessageSize || t.lines.bad()
		if len(run) > 0 && !t.bad {
			t.run = run
			return nil
		}
	}
	return t.err
}

// repair repairs the line ends of a run.
func (t *Transfer) repair(run []byte) []byte {
	run = t.ends.next(run)
	if t.ends.fault.kind != "" && !t.lines.bad() {
		t.lines.fault = t.ends.fault
	}
	return run
}

// nextRun returns content, or none if it had to read more or the message ended.
func (t *Transfer) nextRun() []byte {
	b := t.c.io.buffered()
	switch {
	case t.chunked && t.left == 0:
		return t.endOfChunk()
	case len(b) == 0:
	case t.chunked:
		run := b[:min(int64(len(b)), t.left)]
		t.c.io.r += len(run)
		t.left -= int64(len(run))
		return run
	default:
		run, used, end := t.stuffed.next(b)
		t.c.io.r += used
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

// end sets the result of a message that was read to its end.
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

// cutBy sets the result of a message that was cut short. A nil cause leaves the connection open.
func (t *Transfer) cutBy(cause error) {
	t.cause = cause
	t.err = ErrCut
	if cause != nil {
		t.err = fmt.Errorf("%w: %w", ErrCut, cause)
	}
}

// fill reads more within the limits on silence and average rate. Only time spent waiting counts, not the session's.
func (t *Transfer) fill() error {
	if t.octets > t.maxDrain() {
		return refuse(ReasonProtocol, t.c.tooBig(), "the client went on sending %d octets into a refused message",
			t.octets)
	}
	before, start := len(t.c.io.buffered()), time.Now()
	maxWait := t.maxWait()
	err := t.c.io.fill(start.Add(maxWait))
	t.waited += time.Since(start)
	if err == nil {
		t.octets += int64(len(t.c.io.buffered()) - before)
	}
	if err != nil && isTimeout(err) {
		return t.tooSlow(maxWait).because(err)
	}
	return err
}

// maxWait is how long to wait for more: DataTimeout, or less if the average rate is low. The rate counts only after the
// first DataTimeout.
func (t *Transfer) maxWait() time.Duration {
	silence := t.c.opt.DataTimeout
	if t.c.opt.MinDataRate <= 0 {
		return silence
	}
	earned := time.Duration(float64(t.octets) / float64(t.c.opt.MinDataRate) * float64(time.Second))
	return min(silence, silence+earned-t.waited)
}

func (t *Transfer) tooSlow(waited time.Duration) *refusal {
	if waited < t.c.opt.DataTimeout {
		return refuse(ReasonTimeout, mail.R(421, "4.4.2", "too slow, closing; send the message again"),
			"the client sent %d octets in %s, less than min_data_rate asks for", t.octets, t.waited.Round(time.Second))
	}
	silence, why := span(t.c.opt.DataTimeout), "see data_timeout"
	if t.endsBare() {
		why = "it probably ends its messages with LF . LF, which ends none: set its line ends to CR LF"
	}
	return refuse(ReasonTimeout,
		mail.R(421, "4.4.2", "silent for %s inside a message, closing; send it again", silence),
		"the client was silent for %s inside a message; %s", t.c.opt.DataTimeout, why)
}

// endsBare reports whether the client probably waits for the answer to an end that is none.
func (t *Transfer) endsBare() bool {
	return !t.chunked && (t.lines.fault.kind == loneDot || t.lines.fault.kind == bareLF)
}

// maxDrain bounds how much of an oversized message is read to its end, so that the client learns why it is refused.
func (t *Transfer) maxDrain() int64 { return 4*t.c.opt.MaxMessageSize + 64<<20 }

// endOfChunk ends the message after its last chunk, or answers the chunk and goes on to the next.
func (t *Transfer) endOfChunk() []byte {
	switch {
	case t.last && !t.bad && (t.lines.open() || t.ends.unended()):
		t.lines.size -= int64(len(lineEnd)) // the client did not send it
		return lineEnd
	case t.last, t.bad: // a refusal answers this chunk and ends the message
		t.end()
	case t.closed:
		t.err = errUnfinished
	case t.maxWait() <= 0:
		t.cutBy(t.tooSlow(0))
	default:
		t.c.io.send(mail.R(250, "2.0.0", "chunk received, %d octets so far", t.lines.size))
		start := time.Now()
		t.nextChunk()
		t.waited += time.Since(start)
	}
	return nil
}

var lineEnd = []byte("\r\n")

// nextChunk reads commands up to the next BDAT. NOOP changes nothing. Any other command, such as RSET, abandons the
// message and runs afterwards.
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
