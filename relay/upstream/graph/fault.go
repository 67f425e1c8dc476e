package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/internal/whytls"
	"postern/relay/upstream/via"
)

// fault is why a message was not taken. The reply is Graph's in the words of SMTP, or one of ours that describes the
// trouble.
type fault struct {
	stage      mail.Stage
	class      mail.Class
	reply      mail.Reply
	retryAfter time.Duration
	uncertain  bool // Graph may have sent the message
	author     bool // see Rule.Author
	ours       bool // nothing was asked of Graph
	aside      bool // it says nothing about the mailbox's other mail
	answered   bool // Graph spoke
	note       string
	rule       *Rule // nil: not of an answer
	err        error
}

// Error implements error, so that a fault passes through package large.
func (f *fault) Error() string { return f.reply.String() }

// verdict is what the fault says about the mailbox.
func (f *fault) verdict() account.Verdict {
	switch {
	case f.ours, f.aside:
		return account.Nothing
	case f.author:
		return account.Works
	case f.class == mail.AccountFault:
		return account.Fault
	case f.class == mail.BackPressure:
		return account.Pressure
	case f.class.Permanent():
		return account.Works
	}
	return account.Reached
}

func (f *fault) news() account.News {
	early := !f.answered && f.stage != mail.StageDot && f.stage != mail.StageData
	return account.News{Verdict: f.verdict(), Reply: f.reply, Early: early, AtLeast: f.retryAfter,
		Spent: f.rule != nil && f.rule.Quota}
}

func (f *fault) apply(r *mail.Result) {
	r.Class, r.Stage, r.Reply, r.RetryAfter, r.Uncertain, r.Note, r.Err = f.class, f.stage, f.reply, f.retryAfter,
		f.uncertain, f.note, f.err
	r.OfSender = f.author
	if r.Rule = ""; f.rule != nil {
		r.Rule = f.rule.Name
	}
}

func contentFault(err error) *fault {
	return &fault{stage: mail.StageData, class: mail.Deferral, ours: true,
		reply: mail.R(451, "4.3.0", "the message cannot be read now"), err: err}
}

// leaseFault: the message may be somebody else's by now, and Graph does not have it.
func leaseFault(stage mail.Stage) *fault {
	return &fault{stage: stage, class: mail.Deferral, ours: true, reply: upstream.ReplyLease, err: upstream.ErrLease}
}

// signFault: there is no unsigned send, and no bounce for a key of ours.
func signFault(err error) *fault {
	r, ok := mail.ReplyFor(err)
	if !ok || !r.Temporary() {
		r = mail.R(451, "4.7.5", "the message cannot be signed now")
	}
	return &fault{stage: mail.StageSign, class: mail.Deferral, ours: true, reply: r, err: err}
}

// tokenFault: an error that knows whose matter it is is believed, any other passes.
func tokenFault(err error) *fault {
	f := &fault{stage: mail.StageAuth, class: mail.BackPressure, err: err,
		reply: mail.R(454, "4.7.0", "no access token: %s", mail.Cut(mail.Printable(err.Error()), maxMessage))}
	known, ok := errors.AsType[upstream.TokenError](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errStopped):
		f.class, f.ours = mail.Deferral, true
	case ok && known.Class() == mail.AccountFault:
		f.class = mail.AccountFault
	}
	return f
}

// lost makes a fault of a request without an answer. gone: its last octet was handed to the connection.
func (u *Upstream) lost(ctx context.Context, err error, gone bool) *fault {
	var way *onTheWay
	if cause := context.Cause(ctx); cause != nil && (cause != errTimeout || !errors.As(err, &way)) {
		err = cause // why we gave up says more than how the transport noticed
	} else if f := u.unreached(err); f != nil && !gone { // an alert behind the request is no refusal of TLS
		return f
	}
	if errors.Is(err, upstream.ErrLease) && !gone {
		return leaseFault(mail.StageData)
	}
	f := &fault{stage: mail.StageData, class: mail.Deferral, err: err,
		reply: mail.R(451, "4.4.2", "%s %s", u.host, describe(err))}
	f.ours = errors.Is(err, errStopped)
	if gone {
		f.stage, f.uncertain = mail.StageDot, true
		f.reply.Text += "; the message may have been sent"
	}
	return f
}

func timedOut(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

func describe(err error) string {
	switch {
	case errors.Is(err, upstream.ErrLease):
		return "was left because the lease of the message ran out"
	case errors.Is(err, errStopped):
		return "was left because we are shutting down or out of time"
	case errors.Is(err, errTimeout), timedOut(err):
		return "did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errno.Reset),
		errors.Is(err, errno.BrokenPipe), errors.Is(err, net.ErrClosed):
		return "closed the connection"
	}
	return "cannot be talked to: " + mail.Cut(mail.Printable(err.Error()), maxMessage)
}

// unreached knows the errors from before the request: they are about the network, or about TLS. nil: it is another.
func (u *Upstream) unreached(err error) *fault {
	var (
		proxy        *via.Error
		way          *onTheWay
		dns          *net.DNSError
		op           *net.OpError
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
	)
	network := func(stage mail.Stage, enhanced, text string) *fault {
		return &fault{stage: stage, class: mail.BackPressure, err: err,
			reply: mail.R(451, enhanced, "%s", u.host+" "+text)}
	}
	badTLS := func(text string) *fault {
		return &fault{stage: mail.StageTLS, class: mail.AccountFault, err: err,
			reply: mail.R(454, "4.7.5", "%s", u.host+": "+text)}
	}
	if text, ok := whytls.Handshake(err, false); ok && !errors.As(err, &proxy) {
		return badTLS(text)
	}
	switch {
	case errors.As(err, &proxy):
		return network(mail.StageConnect, "4.4.1", "cannot be reached: "+proxy.Error())
	case errors.As(err, &dns):
		return network(mail.StageResolve, "4.4.3", "cannot be resolved now")
	case errors.As(err, &verification):
		return badTLS(explainCertificate(verification, u.host))
	case errors.As(err, &record):
		return badTLS("does not speak TLS on this port")
	case errors.As(err, &op) && op.Op == "dial":
		return network(mail.StageConnect, "4.4.1", "cannot be reached: "+mail.Printable(op.Err.Error()))
	case errors.As(err, &way) && way.tls && timedOut(err):
		return network(mail.StageTLS, "4.4.2", "did not finish the TLS handshake in time")
	case errors.As(err, &way) && (errors.Is(err, errTimeout) || timedOut(err)):
		return network(mail.StageConnect, "4.4.1", "cannot be reached in time")
	case errors.As(err, &way) && !errors.Is(err, context.Canceled) && !errors.Is(err, errStopped):
		return network(mail.StageConnect, "4.4.1", "cannot be reached: "+mail.Cut(mail.Printable(way.Error()),
			maxMessage))
	}
	return nil
}

// explainCertificate says in plain words why a certificate was refused.
func explainCertificate(e *tls.CertificateVerificationError, host string) string {
	text := whytls.Certificate(e, host, time.Now())
	if unknown, _ := errors.AsType[x509.UnknownAuthorityError](e.Err); unknown.Cert != nil {
		text += "; where a firewall or proxy of yours opens TLS, write the certificate of its authority in ca_file"
	}
	return text
}
