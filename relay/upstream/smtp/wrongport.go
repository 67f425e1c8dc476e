package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/replies"
)

// A port and tls that do not fit look like a server that is broken: whoever waits for a greeting on a port of TLS waits
// for ever. So a server that is silent, or says what is not SMTP, is looked at more closely, and the fault says what to
// write.

// probeTime bounds the question whether a silent port speaks TLS.
const probeTime = 5 * time.Second

// hearClear waits for the first octets of a greeting in clear. left is what remains of limit for the rest of it.
func (c *conn) hearClear(ctx context.Context, limit time.Duration) (left time.Duration, f *fault) {
	begun := time.Now()
	silence := min(c.u.cfg.Timeouts.Silence, limit)
	c.due.read(silence)
	_, err := c.br.Peek(1)
	switch {
	case err == nil:
		if what := protocolOf(c.buffered()); what != speaksSMTP {
			return 0, c.wrongPort(what)
		}
	case isTimeout(err) && !c.due.interrupted() && silence < limit && c.u.speaksTLS(ctx):
		return 0, c.wrongPort(speaksTLS)
	}
	return max(0, limit-time.Since(begun)), nil
}

// speaksTLS asks for TLS on a connection of its own. Nothing is sent on it, so nothing is verified.
func (u *Upstream) speaksTLS(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	nc, f := u.dial(ctx)
	if f != nil {
		return false
	}
	defer nc.Close()
	anyTLS := &tls.Config{ServerName: u.cfg.Host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10} //nolint:gosec
	err := tls.Client(nc, anyTLS).HandshakeContext(ctx)
	return err == nil || isAlert(err)
}

// spoken is what a port speaks, as far as its first octets tell.
type spoken string

const (
	speaksSMTP spoken = "SMTP" // or what may become it
	speaksTLS  spoken = "TLS"
)

// protocols are the beginnings of servers that speak first and are often mistaken for ours.
var protocols = []struct {
	begins string
	name   spoken
}{
	{"* OK", "IMAP"}, {"* BYE", "IMAP"}, {"* PREAUTH", "IMAP"}, {"+OK", "POP3"}, {"-ERR", "POP3"}, {"SSH-", "SSH"},
	{"HTTP/", "HTTP"}, {"RFB ", "VNC"},
	{"\x15\x03", speaksTLS}, {"\x16\x03", speaksTLS}, // a record of TLS: RFC 8446 §5.1
}

func protocolOf(b []byte) spoken {
	for _, p := range protocols {
		if n := min(len(b), len(p.begins)); n >= 2 && string(b[:n]) == p.begins[:n] {
			return p.name
		}
	}
	return speaksSMTP // the reply says what is wrong with it
}

// wrongPort makes a fault of a port that speaks something else. A port of TLS does so until a person changes the
// configuration; another server may stand there for a moment only.
func (c *conn) wrongPort(what spoken) *fault {
	if what == speaksTLS {
		return c.explained(mail.StageGreeting, nil, c.peer+" waits for TLS: this port speaks TLS from the first "+
			"byte: write tls = \"implicit\", or another port")
	}
	f := c.trouble(mail.StageGreeting, replies.ErrSyntax,
		"speaks %s on port %s, not SMTP: write the port of its SMTP server", what, c.u.port())
	f.fixed = true
	return f
}

// clearText makes a fault of clear text where TLS was to begin. record has its first octets.
func (c *conn) clearText(record tls.RecordHeaderError) *fault {
	header := bytes.TrimRight(record.RecordHeader[:], "\x00")
	what := protocolOf(header)
	text := c.peer + " does not speak TLS on this port: STARTTLS or another port may be meant"
	switch {
	case c.u.cfg.TLS == upstream.TLSStartTLS:
		text = c.peer + " agrees to STARTTLS and goes on in clear text; it, or something between, is broken"
	case isCode(header):
		text = c.peer + " does not speak TLS on this port, it greets in clear text: write tls = \"starttls\", or " +
			"another port"
	case what != speaksSMTP:
		text = c.peer + " speaks " + string(what) + " on port " + c.u.port() +
			", not SMTP: write the port of its SMTP server"
	}
	return c.explained(mail.StageTLS, record, text)
}

// isCode reports the beginning of a reply.
func isCode(b []byte) bool {
	code, _, ok := replies.Code(b)
	return ok && code >= 200
}
