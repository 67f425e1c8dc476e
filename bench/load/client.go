package load

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// client is one authenticated SMTP connection.
type client struct {
	raw        net.Conn
	conn       net.Conn // raw, or TLS over it
	in         *bufio.Reader
	out        []byte
	timeout    time.Duration
	pipelining bool
	chunking   bool
	envelope   []byte // MAIL and RCPT of every transaction
	recipients int
}

// refusal is an unwanted reply after which the session can go on.
type refusal struct {
	stage, reply string
}

func (r *refusal) Error() string { return r.stage + ": " + r.reply }

func dial(ctx context.Context, cfg *Config, number int) (*client, error) {
	d := net.Dialer{Timeout: cfg.Timeout}
	if cfg.Sources > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+number%min(cfg.Sources, 250)))}
	}
	raw, err := d.DialContext(ctx, "tcp", cfg.addrOf(number))
	if err != nil {
		return nil, err
	}
	c := &client{raw: raw, conn: raw, timeout: cfg.Timeout, recipients: len(cfg.To)}
	if err := c.begin(cfg); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// begin does everything up to and including the login.
func (c *client) begin(cfg *Config) error {
	c.in = bufio.NewReaderSize(c.raw, 2048)
	c.deadline()
	if cfg.Mode == Implicit {
		if err := c.startTLS(cfg); err != nil {
			return err
		}
	}
	if _, err := c.expect("greeting", 220); err != nil {
		return err
	}
	if err := c.ehlo(); err != nil {
		return err
	}
	if cfg.Mode == StartTLS {
		if err := c.command("STARTTLS", 220); err != nil {
			return err
		}
		if err := c.startTLS(cfg); err != nil {
			return err
		}
		if err := c.ehlo(); err != nil {
			return err
		}
	}
	c.prepare(cfg)
	if cfg.Login == "" {
		return nil
	}
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + cfg.Login + "\x00" + cfg.Password))
	if err := c.write([]byte("AUTH PLAIN " + secret + "\r\n")); err != nil {
		return err
	}
	_, err := c.expect("AUTH", 235)
	return err
}

func (c *client) startTLS(cfg *Config) error {
	t := tls.Client(c.raw, cfg.TLS)
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.conn = t
	c.in.Reset(t)
	return nil
}

func (c *client) ehlo() error {
	if err := c.write([]byte("EHLO load.example.com\r\n")); err != nil {
		return err
	}
	text, err := c.expect("EHLO", 250)
	if err != nil {
		return err
	}
	c.pipelining = strings.Contains(text, "PIPELINING")
	c.chunking = strings.Contains(text, "CHUNKING")
	return nil
}

func (c *client) prepare(cfg *Config) {
	c.envelope = fmt.Appendf(nil, "MAIL FROM:<%s>\r\n", cfg.From)
	for _, to := range cfg.To {
		c.envelope = fmt.Appendf(c.envelope, "RCPT TO:<%s>\r\n", to)
	}
}

// transaction sends one message. began says whether octets of the message may have been sent.
func (c *client) transaction(cfg *Config, message []byte) (began bool, err error) {
	c.deadline()
	if cfg.Chunking && c.chunking && c.pipelining {
		return true, c.oneFlight(message)
	}
	if err := c.openData(); err != nil {
		return false, err
	}
	// No line of the message begins with a dot, so it needs no dot-stuffing.
	c.out = append(append(c.out[:0], message...), ".\r\n"...)
	if err := c.write(c.out); err != nil {
		return true, err
	}
	_, err = c.expect("message", 250)
	return true, err
}

// openData does MAIL, RCPT and DATA, in one flight if possible.
func (c *client) openData() error {
	c.out = append(append(c.out[:0], c.envelope...), "DATA\r\n"...)
	if !c.pipelining {
		return c.stepByStep(c.out)
	}
	if err := c.write(c.out); err != nil {
		return err
	}
	envelope := c.envelopeReplies()
	_, err := c.expect("DATA", 354)
	if envelope != nil && err == nil {
		// A server may answer 354 although it refused some or all recipients. Every message must go to all, so this
		// ends the connection.
		return fmt.Errorf("354 after %v", envelope)
	}
	if envelope != nil {
		return envelope
	}
	return err
}

func (c *client) stepByStep(commands []byte) error {
	for line := range bytes.SplitAfterSeq(commands, []byte("\r\n")) {
		if len(line) == 0 {
			break
		}
		if err := c.write(line); err != nil {
			return err
		}
		want := 250
		if bytes.HasPrefix(line, []byte("DATA")) {
			want = 354
		}
		if _, err := c.expect(string(line[:4]), want); err != nil {
			return err
		}
	}
	return nil
}

// envelopeReplies reads all replies to MAIL and RCPT, unless the connection is lost.
func (c *client) envelopeReplies() error {
	var first error
	for i := range 1 + c.recipients {
		stage := "RCPT"
		if i == 0 {
			stage = "MAIL"
		}
		if _, err := c.expect(stage, 250); err != nil {
			if _, refused := err.(*refusal); !refused {
				return err
			}
			first = cmp.Or(first, err)
		}
	}
	return first
}

// oneFlight sends the envelope and the message by BDAT without waiting in between.
func (c *client) oneFlight(message []byte) error {
	c.out = append(c.out[:0], c.envelope...)
	c.out = append(c.out, "BDAT "...)
	c.out = strconv.AppendInt(c.out, int64(len(message)), 10)
	c.out = append(c.out, " LAST\r\n"...)
	c.out = append(c.out, message...)
	if err := c.write(c.out); err != nil {
		return err
	}
	envelope := c.envelopeReplies()
	_, err := c.expect("message", 250)
	if envelope != nil && err == nil {
		return fmt.Errorf("taken for some recipients only: %v", envelope) // neither accepted nor refused
	}
	if envelope != nil {
		return envelope
	}
	return err
}

func (c *client) command(line string, want int) error {
	c.deadline()
	if err := c.write([]byte(line + "\r\n")); err != nil {
		return err
	}
	_, err := c.expect(line, want)
	return err
}

func (c *client) deadline() { c.raw.SetDeadline(time.Now().Add(c.timeout)) }

func (c *client) write(p []byte) error {
	_, err := c.conn.Write(p)
	return err
}

// expect reads one reply and returns its text with all lines.
func (c *client) expect(stage string, want int) (string, error) {
	var text []byte
	for lines := 0; lines < 100; lines++ {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 {
			return "", fmt.Errorf("malformed reply %q", line)
		}
		if line[3] == '-' {
			text = append(text, line...)
			continue
		}
		code, _ := strconv.Atoi(string(line[:3]))
		if code == want {
			return string(append(text, line...)), nil
		}
		reply := string(bytes.TrimSpace(append(text, line...)))
		if code == 421 || code < 400 {
			return "", fmt.Errorf("%s: %s", stage, reply)
		}
		return "", &refusal{stage: stage, reply: reply}
	}
	return "", fmt.Errorf("%s: reply without end", stage)
}

func (c *client) close() { c.raw.Close() }
