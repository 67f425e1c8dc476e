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
func (c *Session) Body() io.Writer { return c.body }

// Take takes the message that was read, for a hook that answers its end itself.
func (c *Session) Take() {
	m := c.message
	m.Conn = c.Number
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
	if len(c.message.To) == 0 || c.body != nil {
		c.Reply("554 5.5.1 no valid recipients")
		return nil
	}
	c.Reply("354 go ahead")
	if err := c.flush(); err != nil {
		return err
	}
	c.begin()
	if err := c.readDots(); err != nil {
		c.srv.count(func(n *Counts) { n.Cut++ })
		return err
	}
	return c.end(Content, "")
}

// begin opens what takes the octets.
func (c *Session) begin() {
	c.body = (*inMemory)(c)
	if c.srv.cfg.Body != nil {
		c.body = c.srv.cfg.Body(c)
	}
}

// inMemory keeps the octets of a message within its size.
type inMemory Session

func (m *inMemory) Write(p []byte) (int, error) {
	if m.srv.cfg.Size == 0 || m.size <= m.srv.cfg.Size {
		m.message.Data = append(m.message.Data, p...)
	}
	return len(p), nil
}

func (c *Session) feed(p []byte) error {
	c.size += int64(len(p))
	_, err := c.body.Write(p)
	return err
}

// readDots reads up to CRLF.CRLF (RFC 5321 §4.1.1.4).
func (c *Session) readDots() error {
	c.reading = true
	defer func() { c.reading = false }()
	atStart := true // behind a CRLF
	for {
		if _, err := c.br.Peek(1); err != nil {
			return err
		}
		block, _ := c.br.Peek(c.br.Buffered())
		// The fast way: whole lines, up to the first that begins with a dot.
		if end := wholeLines(block); end > 0 && !(atStart && block[0] == '.') {
			if err := c.feed(block[:end]); err != nil {
				return err
			}
			c.br.Discard(end)
			atStart = true
			continue
		}
		line, err := c.br.ReadSlice('\n')
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
		if err := c.feed(line); err != nil {
			return err
		}
	}
}

// wholeLines returns the length of the whole lines at the beginning of a block, up to the first line behind a CRLF that begins
// with a dot.
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
		if _, err := io.CopyN(io.Discard, c.br, size); err != nil || done {
			return err
		}
		return c.answer(Chunk, line, "503 5.5.1 no valid recipients")
	}
	if c.body == nil {
		c.message.Chunked = true
		c.begin()
	}
	if err := c.readChunk(size); err != nil {
		c.srv.count(func(n *Counts) { n.Cut++ })
		return err
	}
	if last == "" {
		return c.answer(Chunk, line, "250 2.0.0 "+number+" octets")
	}
	return c.end(Chunk, line)
}

func (c *Session) readChunk(size int64) error {
	c.reading = true
	defer func() { c.reading = false }()
	for size > 0 {
		if _, err := c.br.Peek(1); err != nil {
			return err
		}
		block, _ := c.br.Peek(int(min(int64(c.br.Buffered()), size)))
		if err := c.feed(block); err != nil {
			return err
		}
		c.br.Discard(len(block))
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
	if most := c.srv.cfg.Size; most > 0 && c.size > most {
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
