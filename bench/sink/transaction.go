package sink

import (
	"bufio"
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"postern/bench/ledger"
)

const (
	maxNames  = 100000
	maxHeader = 1 << 20 // octets looked at for the stamp
)

func (c *conn) mail(arg []byte) error {
	switch {
	case !c.helo || c.open:
		return c.wrong("503 5.5.1 Bad sequence of commands")
	case c.sink.opts.Username != "" && !c.auth:
		return c.wrong("530 5.7.0 Authentication required")
	}
	path, params, ok := cutPath(arg, "FROM:")
	if !ok {
		return c.wrong("501 5.5.4 Syntax: MAIL FROM:<address>")
	}
	if size := parameter(params, "SIZE="); size > c.limit() {
		return c.wrong("552 5.3.4 Message too big")
	}
	if err := c.fault(AtMail, ""); err != nil {
		return answer(err)
	}
	c.open, c.from, c.mailParams = true, c.intern(path), string(params)
	c.reply("250 2.1.0 Ok")
	return nil
}

func (c *conn) rcpt(arg []byte) error {
	if !c.open || c.body != nil {
		return c.wrong("503 5.5.1 Bad sequence of commands")
	}
	path, params, ok := cutPath(arg, "TO:")
	if !ok || len(path) == 0 {
		return c.wrong("501 5.5.4 Syntax: RCPT TO:<address>")
	}
	if len(c.rcpts) >= c.sink.opts.MaxRecipients {
		c.reply("452 4.5.3 Too many recipients")
		return nil
	}
	to := c.intern(path)
	if err := c.fault(AtRcpt, to); err != nil {
		return answer(err)
	}
	if c.sink.faults.greylisted(c.from, to, time.Now()) {
		c.reply("451 4.7.1 Greylisted, please come again")
		return nil
	}
	c.rcpts = append(c.rcpts, to)
	if c.sink.keepMax.Load() > 0 {
		c.rcptParams = append(c.rcptParams, string(params))
	}
	c.reply("250 2.1.5 Ok")
	return nil
}

// cutPath cuts a path and its parameters out of the argument of MAIL or RCPT.
func cutPath(arg []byte, word string) (path, params []byte, ok bool) {
	if len(arg) < len(word) || !strings.EqualFold(string(arg[:len(word)]), word) {
		return nil, nil, false
	}
	arg = bytes.TrimLeft(arg[len(word):], " ")
	if len(arg) == 0 || arg[0] != '<' {
		return nil, nil, false
	}
	end := pathEnd(arg)
	if end < 0 {
		return nil, nil, false
	}
	return arg[1:end], bytes.TrimSpace(arg[end+1:]), true
}

// pathEnd finds the closing bracket, which may also stand in a quoted local part.
func pathEnd(arg []byte) int {
	quoted := false
	for i := 0; i < len(arg); i++ {
		switch {
		case quoted && arg[i] == '\\':
			i++
		case arg[i] == '"':
			quoted = !quoted
		case arg[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

func parameter(params []byte, name string) int64 {
	for _, p := range bytes.Fields(params) {
		if len(p) > len(name) && strings.EqualFold(string(p[:len(name)]), name) {
			n, _ := strconv.ParseInt(string(p[len(name):]), 10, 64)
			return n
		}
	}
	return 0
}

// intern returns b as a string that is allocated once for each name.
func (c *conn) intern(b []byte) string {
	if s, ok := c.names[string(b)]; ok {
		return s
	}
	if len(c.names) >= maxNames {
		clear(c.names)
	}
	s := string(b)
	c.names[s] = s
	return s
}

func (c *conn) reset() {
	c.open, c.from, c.mailParams, c.rcpts, c.rcptParams, c.body = false, "", "", c.rcpts[:0], nil, nil
}

// ready answers a DATA or BDAT that cannot be now.
func (c *conn) ready() bool {
	switch {
	case !c.open:
		c.wrong("503 5.5.1 Need MAIL command")
	case len(c.rcpts) == 0:
		c.wrong("554 5.5.1 No valid recipients")
	default:
		return true
	}
	return false
}

func (c *conn) data() error {
	if c.body != nil {
		return c.wrong("503 5.5.1 BDAT is under way")
	}
	if !c.ready() {
		return nil
	}
	if err := c.fault(AtData, c.rcpts[0]); err != nil {
		c.reset()
		return answer(err)
	}
	c.reply("354 End data with <CR><LF>.<CR><LF>")
	if err := c.flush(); err != nil {
		return err
	}
	t := c.newTransfer()
	if err := c.readDots(t); err != nil {
		c.sink.cut.Add(1)
		return err
	}
	return c.finish(t, false)
}

func (c *conn) bdat(arg string) error {
	number, last, _ := strings.Cut(arg, " ")
	size, err := strconv.ParseInt(number, 10, 62)
	if err != nil || size < 0 || last != "" && !strings.EqualFold(last, "LAST") || !c.offers("CHUNKING") {
		c.wrong("501 5.5.4 Syntax: BDAT size [LAST]")
		return errEnd // what follows cannot be told from commands
	}
	if c.body == nil {
		if !c.ready() {
			return c.discard(size)
		}
		if err := c.fault(AtData, c.rcpts[0]); err != nil {
			if err = answer(err); err != nil {
				return err
			}
			c.reset()
			return c.discard(size)
		}
		c.body = c.newTransfer()
	}
	if err := c.readChunk(c.body, size); err != nil {
		c.sink.cut.Add(1)
		return err
	}
	if last == "" {
		c.reply("250 2.0.0 Chunk ok")
		return nil
	}
	return c.finish(c.body, true)
}

// discard reads over a chunk that was refused.
func (c *conn) discard(size int64) error {
	for size > 0 {
		n, err := c.in.Discard(int(min(size, 1<<20)))
		if size -= int64(n); err != nil {
			return err
		}
	}
	return nil
}

// transfer is the octets of one message, looked at while they pass.
type transfer struct {
	conn    *conn
	stop    bool // close in the middle
	keep    bool // its content is kept
	octets  int64
	header  []byte // until the blank line was seen
	inBody  bool
	size    int64 // of the body
	crc     uint32
	content []byte // all of it, if it is kept
	cr, lf  int
}

func (c *conn) newTransfer() *transfer {
	t := &transfer{conn: c, keep: c.sink.keepMax.Load() > 0, header: make([]byte, 0, 2048)}
	if f, ok := c.sink.faults.at(AtBody, c.rcpts[0]); ok {
		t.stop = true
		if f.Action == Answer { // a reply has no place here: the connection ends
			t.conn.out = t.conn.out[:0]
		}
	}
	return t
}

// feed takes the next octets, unstuffed.
func (t *transfer) feed(p []byte) error {
	if t.stop && len(p) > 0 {
		return errEnd
	}
	t.octets += int64(len(p))
	t.cr += bytes.Count(p, []byte{'\r'})
	t.lf += bytes.Count(p, []byte{'\n'})
	if t.keep && t.octets <= t.conn.limit() {
		t.content = append(t.content, p...)
	}
	if !t.inBody {
		p = t.feedHeader(p)
	}
	t.size += int64(len(p))
	t.crc = ledger.Checksum(t.crc, p)
	return nil
}

// feedHeader takes what belongs to the header and returns the rest.
func (t *transfer) feedHeader(p []byte) []byte {
	before := len(t.header)
	t.header = append(t.header, p...)
	at := bytes.Index(t.header[max(0, before-3):], []byte("\r\n\r\n"))
	if at < 0 {
		t.inBody = len(t.header) > maxHeader // no stamp will be found
		return nil
	}
	end := max(0, before-3) + at + 4
	t.inBody, t.header = true, t.header[:end]
	return p[end-before:]
}

// readDots reads a DATA transfer. It ends at CRLF.CRLF only (RFC 5321 §4.1.1.4).
func (c *conn) readDots(t *transfer) error {
	atStart := true // behind a CRLF
	for {
		if _, err := c.in.Peek(1); err != nil {
			return err
		}
		block, _ := c.in.Peek(c.in.Buffered())
		// The fast way: whole lines, up to the first that begins with a dot.
		if end := wholeLines(block); end > 0 && !(atStart && block[0] == '.') {
			if err := t.feed(block[:end]); err != nil {
				return err
			}
			c.in.Discard(end)
			atStart = true
			continue
		}
		line, err := c.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if atStart && len(line) == 3 && line[0] == '.' && line[1] == '\r' && line[2] == '\n' {
			return nil
		}
		start := atStart
		atStart = bytes.HasSuffix(line, []byte("\r\n"))
		if start && line[0] == '.' {
			line = line[1:]
		}
		if err := t.feed(line); err != nil {
			return err
		}
	}
}

// wholeLines returns the length of the whole lines at the beginning of a block, up to the first line
// behind a CRLF that begins with a dot.
func wholeLines(block []byte) int {
	if dot := bytes.Index(block, []byte("\r\n.")); dot >= 0 {
		return dot + 2
	}
	end := bytes.LastIndex(block, []byte("\r\n"))
	if end < 0 {
		return 0
	}
	return end + 2
}

// readChunk reads size octets of a BDAT transfer.
func (c *conn) readChunk(t *transfer, size int64) error {
	for size > 0 {
		if _, err := c.in.Peek(1); err != nil {
			return err
		}
		block, _ := c.in.Peek(int(min(int64(c.in.Buffered()), size)))
		if err := t.feed(block); err != nil {
			return err
		}
		c.in.Discard(len(block))
		size -= int64(len(block))
	}
	return nil
}

// finish takes a message that has arrived whole: it is counted before its reply leaves.
func (c *conn) finish(t *transfer, chunked bool) error {
	defer c.reset()
	if t.octets > c.limit() {
		c.reply("552 5.3.4 Message too big")
		return nil
	}
	fault := c.fault(AtDot, c.rcpts[0])
	if fault != nil && !errors.Is(fault, errTaken) {
		return answer(fault)
	}
	c.count(t, chunked)
	if fault != nil {
		return fault
	}
	c.sink.hold.Load().wait()
	c.reply("250 2.0.0 Ok: taken")
	return nil
}

func (c *conn) count(t *transfer, chunked bool) {
	s := c.sink
	s.messages.Add(1)
	s.deliveries.Add(int64(len(c.rcpts)))
	s.octets.Add(t.octets)
	if t.cr != t.lf {
		s.bare.Add(1)
	}
	if stamp, err := ledger.ParseStamp(t.header); err == nil {
		s.ledger.Record(stamp, c.rcpts, t.octets, t.size, t.crc, time.Now())
	} else {
		s.unnumber.Add(1)
	}
	if t.keep {
		s.keep(Message{From: c.from, MailParams: c.mailParams, Recipients: append([]string(nil), c.rcpts...), RcptParams: c.rcptParams,
			Data: t.content, Chunked: chunked, Login: c.login})
	}
}
