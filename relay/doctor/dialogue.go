package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"time"

	"postern/relay/config"
)

// Bounds of a visit to a listener.
const (
	visitTime   = 10 * time.Second // from dialling to QUIT
	visitOctets = 64 << 10         // that are read in clear, and again within TLS
)

// visit is what a listener showed to a client that logs in as nobody.
type visit struct {
	stage string // where it ended: "connect", "greeting", "ehlo", "starttls", "tls"; "" all was seen
	err   error  // why

	outside   bool // the listener's networks leave our address out: no more than the connection was tried
	unplaced  bool // we came as a proxy without a client: no login is offered
	startTLS  bool // offered
	authClear bool // offered before TLS
	auth      bool // offered where a login is to be possible
	leaf      *x509.Certificate
}

// talk is a conversation in SMTP.
type talk struct {
	conn net.Conn
	text *textproto.Reader
}

func newTalk(conn net.Conn) *talk {
	return &talk{conn, textproto.NewReader(bufio.NewReader(io.LimitReader(conn, visitOctets)))}
}

// ask sends a command, none if it is empty, and wants a reply with this code.
func (t *talk) ask(command string, code int) (string, error) {
	if command != "" {
		if _, err := fmt.Fprintf(t.conn, "%s\r\n", command); err != nil {
			return "", err
		}
	}
	_, message, err := t.text.ReadResponse(code)
	return message, err
}

// ehlo returns whether STARTTLS and AUTH are offered.
func (t *talk) ehlo() (startTLS, auth bool, err error) {
	message, err := t.ask("EHLO doctor.invalid", 250) // RFC 2606: a name that nobody has
	for line := range strings.SplitSeq(message, "\n") {
		word, _, _ := strings.Cut(strings.ToUpper(line), " ")
		startTLS, auth = startTLS || word == "STARTTLS", auth || word == "AUTH"
	}
	return startTLS, auth, err
}

// visitListener connects to a listener and goes as far as EHLO within TLS. The certificate is not checked here.
func visitListener(ctx context.Context, address string, l *config.Listener) (v visit) {
	ctx, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return visit{stage: "connect", err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if ours, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		from := ours.Addr().Unmap()
		if l.ProxyProtocol.Contains(from) { // as its health check would
			v.unplaced = true
			if _, err := io.WriteString(conn, "PROXY UNKNOWN\r\n"); err != nil {
				return visit{stage: "connect", err: err}
			}
		} else if len(l.Networks) > 0 && !l.Networks.Contains(from) {
			return visit{outside: true}
		}
	}
	v.stage, v.err = v.talk(ctx, conn, l)
	if v.err != nil && ctx.Err() != nil {
		v.err = fmt.Errorf("no answer within %s", visitTime)
	}
	return v
}

// talk is the visit once there is a connection. It returns where it ended, and why.
func (v *visit) talk(ctx context.Context, conn net.Conn, l *config.Listener) (stage string, err error) {
	if l.TLS == config.Implicit {
		if conn, err = v.handshake(ctx, conn); err != nil {
			return "tls", err
		}
	}
	t := newTalk(conn)
	if _, err := t.ask("", 220); err != nil {
		return "greeting", err
	}
	if v.startTLS, v.auth, err = t.ehlo(); err != nil {
		return "ehlo", err
	}
	if l.TLS == config.StartTLS || l.TLS == config.Auto {
		v.authClear, v.auth = v.auth, false
		if !v.startTLS {
			return "", nil
		}
		if _, err := t.ask("STARTTLS", 220); err != nil {
			return "starttls", err
		}
		if conn, err = v.handshake(ctx, conn); err != nil {
			return "tls", err
		}
		t = newTalk(conn)
		if _, v.auth, err = t.ehlo(); err != nil {
			return "ehlo", err
		}
	}
	_, _ = t.ask("QUIT", 221) // all was seen
	return "", nil
}

func (v *visit) handshake(ctx context.Context, conn net.Conn) (net.Conn, error) {
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // it is compared with ours, or shown
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	v.leaf = secure.ConnectionState().PeerCertificates[0]
	return secure, nil
}
