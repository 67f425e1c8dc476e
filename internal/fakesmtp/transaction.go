package fakesmtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// Message is the transaction as far as it has come.
func (c *Session) Message() Message { return c.message }

// Body is what took the octets of the message; see Config.Body.
func (c *Session) Body() io.Writer { return c.transfer.to }

// Take takes the message that was read, for a hook that answers its end itself.
func (c *Session) Take() {
	if c.transfer == nil {
		panic("fakesmtp: there is no message to take")
	}
	m := c.message
	c.reset()
	c.Taken++
	c.srv.mu.Lock()
	c.srv.messages = append(c.srv.messages, m)
	c.srv.mu.Unlock()
}

// data is DATA, which the hook has let.
func (c *Session) data() error {
	if c.barred(true) {
		return nil
	}
	if len(c.message.To) == 0 || c.transfer != nil {
		c.Reply("554 5.5.1 no valid recipients")
		return nil
	}
	c.Reply("354 go ahead")
	if err := c.link.flush(); err != nil {
		return err
	}
	c.begin()
	if err := c.transfer.read(c.transfer.dots); err != nil {
		return err
	}
	return c.end(Content, "")
}

// transfer is the octets of one message on their way.
type transfer struct {
	link *link
	to   io.Writer
	size int64 // of what came
}

func (c *Session) begin() {
	c.transfer = &transfer{link: &c.link}
	c.transfer.to = &inMemory{message: &c.message, most: c.srv.cfg.Size}
	if c.srv.cfg.Body != nil {
		c.transfer.to = c.srv.cfg.Body(c)
	}
}

// read reads octets, and counts a transfer that is cut.
func (t *transfer) read(from func() error) error {
	t.link.reading = true
	defer func() { t.link.reading = false }()
	err := from()
	if err != nil {
		t.link.srv.count(func(n *Counts) { n.Cut++ })
	}
	return err
}

// inMemory keeps the octets of a message within its size.
type inMemory struct {
	message *Message
	most    int64 // 0: any
}

func (m *inMemory) Write(p []byte) (int, error) {
	if m.most == 0 || int64(len(m.message.Data)) <= m.most {
		m.message.Data = append(m.message.Data, p...)
	}
	return len(p), nil
}

func (t *transfer) feed(p []byte) error {
	t.size += int64(len(p))
	_, err := t.to.Write(p)
	return err
}

// dots reads up to CRLF.CRLF (RFC 5321 §4.1.1.4).
func (t *transfer) dots() error {
	br := t.link.br
	atStart := true // behind a CRLF
	for {
		if _, err := br.Peek(1); err != nil {
			return err
		}
		block, _ := br.Peek(br.Buffered())
		// The fast way: whole lines, up to the first that begins with a dot.
		if end := wholeLines(block); end > 0 && !(atStart && block[0] == '.') {
			if err := t.feed(block[:end]); err != nil {
				return err
			}
			br.Discard(end)
			atStart = true
			continue
		}
		line, err := br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if atStart && string(line) == ".\r\n" {
			return nil
		}
		if atStart && line[0] == '.' {
			line = line[1:]
		}
		atStart = bytes.HasSuffix(line, []byte("\r\n"))
		if err := t.feed(line); err != nil {
			return err
		}
	}
}

// wholeLines returns the length of the whole lines at the beginning of a block, up to the first line behind a CRLF
// that begins with a dot.
func wholeLines(block []byte) int {
	if dot := bytes.Index(block, []byte("\r\n.")); dot >= 0 {
		return dot + 2
	}
	if end := bytes.LastIndex(block, []byte("\r\n")); end >= 0 {
		return end + 2
	}
	return 0
}

// bdat reads a chunk (RFC 3030 §2); its octets come even if it is refused.
func (c *Session) bdat(line, args string) error {
	number, last, _ := strings.Cut(args, " ")
	size, err := strconv.ParseInt(number, 10, 62)
	if err != nil || size < 0 || last != "" && !strings.EqualFold(last, "LAST") {
		return c.answer("BDAT", line, "501 5.5.4 how many?")
	}
	done, err := c.ask("BDAT", line)
	if err != nil {
		return err
	}
	if done {
		c.message.To = nil // RFC 3030 §2: the transaction is over
	} else if c.barred(true) {
		done = true
	}
	if done || len(c.message.To) == 0 {
		if _, err := io.CopyN(io.Discard, c.link.br, size); err != nil || done {
			return err
		}
		return c.answer(Chunk, line, "503 5.5.1 no valid recipients")
	}
	if c.transfer == nil {
		c.message.Chunked = true
		c.begin()
	}
	if err := c.transfer.read(func() error { return c.transfer.chunk(size) }); err != nil {
		return err
	}
	if last == "" {
		return c.answer(Chunk, line, "250 2.0.0 "+number+" octets")
	}
	return c.end(Chunk, line)
}

func (t *transfer) chunk(size int64) error {
	br := t.link.br
	for size > 0 {
		if _, err := br.Peek(1); err != nil {
			return err
		}
		block, _ := br.Peek(int(min(int64(br.Buffered()), size)))
		if err := t.feed(block); err != nil {
			return err
		}
		br.Discard(len(block))
		size -= int64(len(block))
	}
	return nil
}

// end is behind the last octet of a message.
func (c *Session) end(verb, line string) error {
	defer c.reset()
	if done, err := c.ask(verb, line); done || err != nil {
		return err
	}
	if most := c.srv.cfg.Size; most > 0 && c.transfer.size > most {
		c.Reply("552 5.3.4 message too big")
		return nil
	}
	if c.srv.cfg.Take == nil {
		c.Take()
	} else if done, err := c.do(c.srv.cfg.Take(c, c.message)); done || err != nil {
		return err
	}
	c.Reply("250 2.0.0 taken")
	return nil
}

func (c *Session) mail(args string) {
	_, parameters, ok := Path(args)
	switch {
	case c.barred(true):
	case c.open:
		c.Reply("503 5.5.1 nested MAIL")
	case !ok || !strings.HasPrefix(strings.ToUpper(args), "FROM:"):
		c.Reply("501 5.5.4 MAIL FROM:<address>")
	case c.srv.cfg.Size > 0 && declared(parameters) > c.srv.cfg.Size:
		c.Reply("552 5.3.4 message too big")
	default:
		c.open, c.message = true, Message{Conn: c.Number, From: args}
		c.Reply("250 2.1.0 sender ok")
	}
}

// declared is the SIZE of MAIL.
func declared(parameters string) int64 {
	for p := range strings.FieldsSeq(parameters) {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "SIZE") {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

func (c *Session) rcpt(args string) {
	address, _, ok := Path(args)
	switch most := c.srv.cfg.MaxRecipients; {
	case !c.open || c.transfer != nil:
		c.Reply("503 5.5.1 MAIL first")
	case !ok || address == "" || !strings.HasPrefix(strings.ToUpper(args), "TO:"):
		c.Reply("501 5.5.4 RCPT TO:<address>")
	case most > 0 && len(c.message.To) >= most:
		c.Reply("452 4.5.3 too many recipients")
	default:
		c.message.To = append(c.message.To, args)
		c.Reply("250 2.1.5 recipient ok")
	}
}

func (c *Session) reset() {
	c.open, c.message, c.transfer = false, Message{}, nil
}
