package fakesmtp

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"time"
)

// link is the connection of a session: lines come in, replies gather and leave together.
type link struct {
	srv      *Server
	nc       net.Conn // the socket
	rw       net.Conn // nc, or TLS over it
	br       *bufio.Reader
	out      []byte // replies that have not left yet
	answered bool   // since the client last sent
	reading  bool   // the octets of a message
}

func (l *link) use(rw net.Conn) {
	l.rw = rw
	l.br = bufio.NewReaderSize(&turns{l}, readBuffer)
}

// turns sends the replies before it waits for the client, and counts the client's flights.
type turns struct{ link *link }

func (t *turns) Read(b []byte) (int, error) {
	l := t.link
	if !l.reading || !l.srv.cfg.Gather {
		if err := l.flush(); err != nil {
			return 0, err
		}
	}
	n, err := l.rw.Read(b)
	if n > 0 && l.answered {
		l.answered = false
		l.srv.count(func(n *Counts) { n.Flights++ })
	}
	return n, err
}

// flush sends the replies that wait, after the delay.
func (l *link) flush() error {
	cfg := &l.srv.cfg
	if len(l.out) == 0 {
		return nil
	}
	if cfg.Delay != nil {
		if err := l.pause(cfg.Delay()); err != nil {
			return err
		}
	}
	if cfg.Idle > 0 {
		l.nc.SetDeadline(time.Now().Add(cfg.Idle))
	}
	l.answered = true
	_, err := l.rw.Write(l.out)
	l.out = l.out[:0]
	return err
}

func (l *link) pause(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-l.srv.done:
		return errEnd
	}
}

// line reads a line without its end.
func (l *link) line(most int) (string, error) {
	b, err := l.br.ReadSlice('\n')
	long := len(b) > most
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.br.ReadSlice('\n')
	}
	switch {
	case err != nil:
		return "", err
	case long:
		return "", errLongLine
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func (l *link) reply(text string) {
	if strings.Contains(text, "\n") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	l.out = append(append(l.out, text...), '\r', '\n')
}
