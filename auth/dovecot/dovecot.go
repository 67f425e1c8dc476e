// Package dovecot is the credential source of a Dovecot server, asked over its auth socket (protocol 1.2): whoever may
// read mail there may send mail here, with the same password.
//
// # Failure semantics
//
// Dovecot does not tell an unknown login from a wrong password, so whatever it refuses is auth.ErrWrongPassword, or
// auth.ErrLocked if it says that the user is disabled. A temporary failure concerns one login until several in a row
// meet it. What is read is bounded, and a reply that is not understood means that the source is down. The socket is a
// file of this machine: passwords cross no network.
package dovecot

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"postern/auth"
	"postern/auth/internal/fields"
	"postern/mail"
)

// Options are a server.
type Options struct {
	Name    string // of the source
	Socket  string // the path of the auth-client socket
	Timeout time.Duration
	StaleOK time.Duration // see auth.Remote
}

const (
	// defaultTimeout leaves room for auth_failure_delay, 2 s by default, which a refusal takes.
	defaultTimeout = 10 * time.Second
	maxLine        = 8192    // octets, as Dovecot's own clients have it
	maxRead        = 1 << 16 // octets on one connection
	// manyFail is how many different logins in a row must fail for a time until that is trouble of the server.
	manyFail = 3
)

// Source is a server. It is safe for concurrent use.
type Source struct {
	Options

	mu     sync.Mutex // guards failed
	failed map[string]bool
}

// New makes a source, and connects to nothing yet.
func New(o Options) (*Source, error) {
	if !filepath.IsAbs(o.Socket) {
		return nil, mail.BadKey("socket", "%q is no path, write that of Dovecot's socket, such as "+
			`"/run/dovecot/auth-client"`, o.Socket)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	return &Source{Options: o, failed: map[string]bool{}}, nil
}

// Name implements auth.Source.
func (s *Source) Name() string { return s.Options.Name }

// StaleOK implements auth.Remote.
func (s *Source) StaleOK() time.Duration { return s.Options.StaleOK }

// Probe implements auth.Remote: the server greets as it should.
func (s *Source) Probe(ctx context.Context) error {
	return s.with(ctx, func(io.Writer, *bufio.Reader) error { return nil })
}

// Verify implements auth.Source.
func (s *Source) Verify(ctx context.Context, login, password string) (id auth.Identity, err error) {
	if password == "" || strings.Contains(login+password, "\x00") {
		return id, auth.ErrWrongPassword
	}
	err = s.with(ctx, func(w io.Writer, r *bufio.Reader) error {
		// no-penalty: Dovecot slows down addresses that guess, and knows only ours, which is everybody's. We have a
		// lockout of our own.
		secret := base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
		_, err := fmt.Fprintf(w, "AUTH\t1\tPLAIN\tservice=smtp\tsecured\tno-penalty\tresp=%s\n", secret)
		if err != nil {
			return err
		}
		line, err := readLine(r)
		if err != nil {
			return err
		}
		id, err = parseReply(line, login)
		return err
	})
	return id, s.judge(login, err)
}

// judge tells trouble with one login from trouble of the server.
func (s *Source) judge(login string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, auth.ErrUndecided) {
		clear(s.failed)
		return err
	}
	if s.failed[login] = true; len(s.failed) < manyFail {
		return err
	}
	clear(s.failed)
	return fmt.Errorf("it fails for a time for %d logins: look into its log", manyFail)
}

// with runs f on a connection that has been greeted.
func (s *Source) with(ctx context.Context, f func(io.Writer, *bufio.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", s.Socket)
	if err != nil {
		return explain(err, s.Socket)
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	c.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(c, "VERSION\t1\t2\nCPID\t%d\n", os.Getpid()); err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.LimitReader(c, maxRead), maxLine)
	if err := greeted(r); err != nil {
		return err
	}
	return f(c, r)
}

func explain(err error, socket string) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no socket %s: is Dovecot running, and does its service auth have a unix_listener "+
			"of that name?", socket)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s may not be opened by this user: set user, group and mode of its unix_listener", socket)
	}
	return err
}

// greeted reads the server's handshake up to DONE.
func greeted(r *bufio.Reader) error {
	version, plain := false, false
	for {
		line, err := readLine(r)
		if err != nil {
			return fmt.Errorf("greeting: %w", err)
		}
		command, rest, _ := strings.Cut(line, "\t")
		switch command {
		case "VERSION":
			major, _, _ := strings.Cut(rest, "\t")
			if major != "1" {
				return fmt.Errorf("it speaks version %s of the protocol, not 1", quoted(major))
			}
			version = true
		case "MECH":
			name, _, _ := strings.Cut(rest, "\t")
			plain = plain || name == "PLAIN"
		case "DONE":
			switch {
			case !version:
				return errors.New("what answers there is no auth-client socket: it says no version")
			case !plain:
				return errors.New("it does not offer PLAIN: write plain into auth_mechanisms of Dovecot")
			}
			return nil
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("a line is longer than %d octets", maxLine)
	case errors.Is(err, io.EOF):
		return "", errors.New("it closed the connection, or said too much")
	case err != nil:
		return "", err
	}
	return string(line[:len(line)-1]), nil
}

// parseReply reads OK or FAIL to request 1.
func parseReply(line, login string) (auth.Identity, error) {
	words := strings.Split(line, "\t")
	if len(words) < 2 || words[1] != "1" {
		return auth.Identity{}, fmt.Errorf("it answers %s, which is not understood", quoted(line))
	}
	values := map[string]string{}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		values[key] = unescape(value)
	}
	switch words[0] {
	case "OK":
		return identity(values, login)
	case "FAIL":
		return auth.Identity{}, auth.OfLogin(values["user"], refusal(values))
	}
	return auth.Identity{}, fmt.Errorf("it answers %s, which is not understood", quoted(words[0]))
}

func refusal(values map[string]string) error {
	_, temp := values["temp"]
	_, disabled := values["user_disabled"]
	_, expired := values["pass_expired"]
	code, why := values["code"], ""
	if reason := values["reason"]; reason != "" {
		why = ": " + mail.Printable(mail.Cut(reason, 200))
	}
	switch {
	case temp || code == "temp_fail":
		return fmt.Errorf("%w: a temporary failure%s", auth.ErrUndecided, why)
	case disabled || code == "user_disabled":
		return fmt.Errorf("%w: the user is disabled%s", auth.ErrLocked, why)
	case expired || code == "pass_expired":
		return fmt.Errorf("%w: its password has expired%s", auth.ErrLocked, why)
	}
	return fmt.Errorf("%w%s", auth.ErrWrongPassword, why)
}

// identity reads what came with OK. postern_groups and postern_senders are extra fields of a passdb.
func identity(values map[string]string, login string) (id auth.Identity, err error) {
	if _, no := values["nologin"]; no {
		return id, fmt.Errorf("%w: the user has nologin", auth.ErrLocked)
	}
	id.Login = login
	if own, ok := auth.NormalizeLogin(values["user"]); ok {
		id.Login = own
	}
	if v, ok := values["postern_groups"]; ok {
		if id.Groups, err = fields.Split(v); err == nil {
			err = fields.Groups(id.Groups)
		}
	}
	if v, ok := values["postern_senders"]; ok && err == nil {
		if id.Senders, err = fields.Split(v); err == nil {
			err = fields.Senders(id.Senders)
		}
	}
	if err != nil {
		return auth.Identity{}, fmt.Errorf("%w: postern_groups or postern_senders: %w", auth.ErrUndecided, err)
	}
	return id, nil
}

// unescape undoes what Dovecot does to tabs, line ends, NUL and the octet 1.
func unescape(s string) string { return escapes.Replace(s) }

var escapes = strings.NewReplacer("\x01t", "\t", "\x01n", "\n", "\x01r", "\r", "\x010", "\x00", "\x011", "\x01")

func quoted(s string) string { return `"` + mail.Printable(mail.Cut(s, 80)) + `"` }
