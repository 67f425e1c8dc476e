package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/upstream/account"
	"postern/relay/upstream/internal/whytls"
	"postern/relay/upstream/replies"
)

// fault is why a connection did not get ready, or a transaction ended for all that had no result yet. The reply is the
// upstream's, or one of ours that describes the trouble.
type fault struct {
	stage      mail.Stage
	class      mail.Class
	reply      mail.Reply
	retryAfter time.Duration
	unheard    bool // of a login: neither password nor token was checked
	notes      []string
	uncertain  bool          // the upstream may have the message
	rule       *replies.Rule // that decided; nil where there was no reply to classify
	ours       bool          // nothing was asked of the upstream
	verbatim   bool          // the reply is the upstream's
	fixed      bool          // the reply is ours and says what to do
	err        error
}

// verdict is what the fault says about the identity.
func (f *fault) verdict() account.Verdict {
	switch {
	case f.ofSender():
		return account.Works // of the identity; the sender's mail waits by itself
	case f.class == mail.AccountFault:
		return account.Fault
	case f.class == mail.BackPressure:
		return account.Pressure
	case early(f.stage):
		return account.Nothing // cancelled on the way
	case f.ours || f.err != nil:
		return account.Reached
	}
	return account.Works // the upstream decided, for better or worse
}

// ofSender reports an account fault that concerns the message's reverse-path alone.
func (f *fault) ofSender() bool { return f.rule != nil && f.rule.Scope == replies.ScopeSender }

// early reports whether a stage lies before MAIL.
func early(stage mail.Stage) bool {
	switch stage {
	case mail.StageSign, mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot:
		return false
	}
	return true
}

// refused makes a fault of a 4yz or 5yz reply, by the rules. Any other code that was not asked for means that we and
// the upstream are out of step. about is the addresses that the command had, which the reply may repeat.
func (c *conn) refused(stage mail.Stage, r mail.Reply, about ...mail.Address) *fault {
	if r.Code == 221 { // RFC 5321 §4.2.3: closing; nobody asked for it
		c.broken = true
		return c.excuse(&fault{stage: stage, class: mail.BackPressure, reply: c.kept(r), verbatim: true})
	}
	if !r.Temporary() && !r.Permanent() {
		c.broken = true
		return c.trouble(stage, errOutOfStep, "answered %q, which is no answer to what was asked", r.String())
	}
	rule, _ := c.u.rules.Classify(stage, r, time.Now(), about...)
	if r.Code == 421 || rule.Name == replies.Protocol {
		c.broken = true
	}
	return c.excuse(&fault{
		stage: stage, class: rule.Class, reply: c.kept(r), verbatim: true, retryAfter: rule.RetryAfter, rule: &rule,
	})
}

// excuse makes nothing of a fault that is our own doing: an upstream lets go of who has not said anything for long, as
// a process that stood still, and that says nothing about the upstream.
func (c *conn) excuse(f *fault) *fault {
	if f.class == mail.BackPressure && c.due.ended() {
		f.class, f.ours = mail.Deferral, true
	}
	return f
}

// kept is what is kept of a reply: none of our secrets, and no more than anybody reads.
func (c *conn) kept(r mail.Reply) mail.Reply {
	r = c.secrets.Reply(r)
	r.Text = mail.Cut(r.Text, replies.MaxText)
	return r
}

// words are ours about what the upstream did, which they may repeat.
func (c *conn) words(text string) string { return mail.Cut(c.secrets.Text(text), replies.MaxText) }

// cause is an error that may quote the upstream, without our secrets.
func (c *conn) cause(err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); c.secrets.Text(text) != text {
		return errors.New(c.secrets.Text(text))
	}
	return err
}

// Causes that have no error of their own.
var (
	errOutOfStep  = errors.New("reply out of step")
	errInjection  = errors.New("octets behind the reply to STARTTLS")
	errEarlyReply = errors.New("reply to the message before its end")
)

// trouble makes a fault out of something that is no reply. Before MAIL it is back-pressure, from MAIL on a deferral.
func (c *conn) trouble(stage mail.Stage, err error, format string, args ...any) *fault {
	c.broken = true
	class := mail.Deferral
	if early(stage) {
		class = mail.BackPressure
	}
	return c.excuse(&fault{stage: stage, class: class, reply: mail.R(451, "4.4.2", "%s",
		c.words(c.peer+" "+fmt.Sprintf(format, args...))), err: err})
}

// lost makes a fault of an error from the connection.
func (c *conn) lost(stage mail.Stage, err error) *fault {
	if c.due.ended() {
		return c.trouble(stage, context.Canceled, "was left because we are shutting down or out of time")
	}
	if early(stage) && isAlert(err) { // in TLS 1.3 the server checks our certificate after the handshake
		return c.handshakeFault(err)
	}
	var netErr net.Error
	switch {
	case errors.Is(err, replies.ErrSyntax):
		return c.trouble(stage, err, "answered something that is no SMTP reply")
	case errors.Is(err, replies.ErrTooLong):
		return c.trouble(stage, err, "sent a reply without end")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errno.Reset),
		errors.Is(err, errno.BrokenPipe), errors.Is(err, io.ErrClosedPipe):
		return c.trouble(stage, err, "closed the connection")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return c.trouble(stage, err, "did not answer in time")
	}
	return c.trouble(stage, err, "cannot be talked to any more")
}

// accountFault is trouble that a person has to look at: configuration, credentials, certificates.
func (c *conn) accountFault(stage mail.Stage, enhanced string, err error, text string) *fault {
	c.broken = true
	return &fault{stage: stage, class: mail.AccountFault, reply: mail.R(454, enhanced, "%s", c.words(text)),
		err: c.cause(err)}
}

// isAlert reports an alert that the other side sent.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// handshakeFault tells a certificate that is not good enough, which a person must mend, from a network that is not.
func (c *conn) handshakeFault(err error) *fault {
	if c.due.ended() {
		return c.lost(mail.StageTLS, err)
	}
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &verification):
		return c.explained(mail.StageTLS, err, c.peer+": "+whytls.Certificate(verification, c.u.cfg.Host, time.Now()))
	case errors.As(err, &record):
		return c.clearText(record)
	}
	if text, ok := whytls.Handshake(err, len(c.u.cfg.Certificates) > 0); ok {
		return c.explained(mail.StageTLS, err, c.peer+" "+text)
	}
	return c.lost(mail.StageTLS, err)
}

// explained is an accountFault about TLS whose text says what to do.
func (c *conn) explained(stage mail.Stage, err error, text string) *fault {
	f := c.accountFault(stage, "4.7.5", err, text)
	f.fixed = true
	return f
}
