package sink

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"time"

	"postern/bench/ledger"
	"postern/internal/fakesmtp"
)

const maxHeader = 1 << 20 // octets looked at for the stamp

var blankLine = []byte("\r\n\r\n")

var errFault = errors.New("cut off on demand")

// transfer is the octets of one message, looked at while they pass.
type transfer struct {
	stop    bool  // close in the middle
	keep    int64 // octets of its content are kept at most
	octets  int64
	header  []byte // until the blank line was seen
	inBody  bool
	size    int64 // of the body
	crc     uint32
	content []byte // all of it, if it is kept
	cr, lf  int
}

func (s *Sink) newTransfer(c *fakesmtp.Session) io.Writer {
	t := &transfer{header: make([]byte, 0, 2048)}
	if s.keepMax.Load() > 0 {
		t.keep = s.limit()
	}
	_, t.stop = s.faults.at(AtBody, recipient(c.Message()))
	return t
}

// Write takes the next octets, unstuffed.
func (t *transfer) Write(p []byte) (int, error) {
	if t.stop {
		return 0, errFault
	}
	all := len(p)
	t.octets += int64(all)
	t.cr += bytes.Count(p, []byte{'\r'})
	t.lf += bytes.Count(p, []byte{'\n'})
	if t.octets <= t.keep {
		t.content = append(t.content, p...)
	}
	if !t.inBody {
		p = t.feedHeader(p)
	}
	t.size += int64(len(p))
	t.crc = ledger.Checksum(t.crc, p)
	return all, nil
}

// feedHeader takes what belongs to the header and returns the rest.
func (t *transfer) feedHeader(p []byte) []byte {
	if at := bytes.Index(p, blankLine); at >= 0 && len(t.header) == 0 { // nearly always
		t.inBody, t.header = true, append(t.header, p[:at+4]...)
		return p[at+4:]
	}
	before := len(t.header)
	t.header = append(t.header, p...)
	at := bytes.Index(t.header[max(0, before-3):], blankLine)
	if at < 0 {
		t.inBody = len(t.header) > maxHeader // no stamp will be found
		return nil
	}
	end := max(0, before-3) + at + 4
	t.inBody, t.header = true, t.header[:end]
	return p[end-before:]
}

// take counts a message that has arrived whole, before its reply leaves.
func (s *Sink) take(c *fakesmtp.Session, m fakesmtp.Message) fakesmtp.Action {
	fault, faulty := s.faults.at(AtDot, recipient(m))
	if faulty && fault.Action != Taken {
		return fault.action()
	}
	s.count(c, m)
	if faulty {
		return fakesmtp.Action{Drop: true}
	}
	s.hold.Load().wait()
	return fakesmtp.Action{}
}

func (s *Sink) count(c *fakesmtp.Session, m fakesmtp.Message) {
	t := c.Body().(*transfer)
	recipients := make([]string, len(m.To))
	for i, argument := range m.To {
		recipients[i], _, _ = fakesmtp.Path(argument)
	}
	s.messages.Add(1)
	s.deliveries.Add(int64(len(recipients)))
	s.octets.Add(t.octets)
	if t.cr != t.lf {
		s.bare.Add(1)
	}
	if stamp, err := ledger.ParseStamp(t.header); err == nil {
		s.ledger.Record(stamp, recipients, t.octets, t.size, t.crc, time.Now())
	} else {
		s.unnumbered.Add(1)
	}
	if t.keep > 0 {
		s.keep(Message{Recipients: recipients, Data: t.content, Chunked: m.Chunked, Login: c.User}, m)
	}
}

func (s *Sink) keep(k Message, m fakesmtp.Message) {
	k.From, k.MailParams, _ = fakesmtp.Path(m.From)
	for _, argument := range m.To {
		_, parameters, _ := fakesmtp.Path(argument)
		k.RcptParams = append(k.RcptParams, parameters)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, k)
	if over := len(s.kept) - int(s.keepMax.Load()); over > 0 {
		s.kept = slices.Delete(s.kept, 0, over)
	}
}
