package relay

import (
	"cmp"
	"context"
	"errors"

	"postern/auth"
	"postern/internal/logline"
	"postern/mail"
	"postern/relay/trace"
	"postern/relay/wire"
)

// login is one SASL exchange. It sees to it that a refusal which never reached the sources of credentials is told
// like one that did: an empty password is worth as much to whoever looks for the reason as a wrong one.
type login struct {
	auth.Exchange
	session *session
	checked bool // authenticate told of it
}

func (s *session) newLogin(mechanism string) (wire.Exchange, mail.Reply) {
	l := &login{session: s}
	exchange, err := auth.NewExchange(mechanism, func(ctx context.Context, authzid, name, password string) mail.Reply {
		l.checked = true
		return s.authenticate(ctx, authzid, name, password)
	})
	if err != nil {
		return nil, replyNoMechanism
	}
	l.Exchange, s.login = exchange, l
	return l, mail.Reply{}
}

// Next implements wire.Exchange.
func (l *login) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	challenge, reply := l.Exchange.Next(ctx, response)
	if reply.IsZero() {
		return challenge, reply
	}
	l.session.login = nil
	if !reply.OK() && !l.checked {
		name, why := l.Refusal()
		l.session.loginRefused(name, "", reply, why)
	}
	return challenge, reply
}

// LoginRefused implements wire.LoginWitness: a login that wire refused by itself, or that the client gave up.
func (s *session) LoginRefused(mechanism, why string, reply mail.Reply) {
	name := ""
	if s.login != nil {
		name, _ = s.login.Refusal()
		s.login = nil
	}
	s.loginRefused(name, mechanism, reply, errors.New(why))
}

// loginRefused traces and logs a login that came to nothing, as far as its place has not too many of them.
func (s *session) loginRefused(name, mechanism string, reply mail.Reply, why error) {
	name = mail.Printable(mail.Cut(name, 256))
	s.srv.metrics.auth.WithLabelValues("refused").Inc()
	detail := cmp.Or(mail.Reason(why), "refused")
	if mechanism != "" {
		detail = mechanism + ": " + detail
	}
	if !s.refusal(trace.Event{Kind: trace.AuthFail, Login: name, Reply: reply, Detail: detail}) {
		return
	}
	if name == s.identity.Login {
		name = "" // is in every line of the session
	}
	s.log.Warn("login refused", logline.Pairs("login", name, "client", s.conn.Client().Addr(), "mechanism", mechanism,
		"reply", reply.String(), "err", logline.Error(reply, why))...)
}

// MendSender implements wire.Mender: where From is rewritten the reverse-path is too, so it needs no reading.
func (s *session) MendSender(string) (mail.Address, bool) {
	if !s.known {
		return mail.Address{}, false
	}
	if err := s.renew(context.Background()); err != nil {
		return mail.Address{}, true // Mail finds the same, and answers with it
	}
	return s.effective.FirstSender(), s.effective.Rewrites()
}
