package submission

import (
	"context"
	"errors"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/wire"
)

// login is one SASL exchange. It records a refusal that never reached a credential source like one that did: an empty
// password explains a failed login as well as a wrong one.
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

func (s *session) authenticate(ctx context.Context, _, login, password string) mail.Reply {
	client := s.conn.Client().Addr()
	s.since, s.accounts = time.Now(), s.service.Accounts.Generation() // before: what changes meanwhile is looked at
	identity, err := s.service.Accounts.Authenticate(ctx, login, password, client)
	if err != nil {
		reply := replyFor(err)
		s.events.loginRefused(login, "", reply, err)
		return reply
	}
	s.service.auth.WithLabelValues("ok").Inc()
	s.waiver = waiver{}
	s.become(identity)
	s.events.loggedIn(identity.Login)
	return mail.R(235, "2.7.0", "authenticated")
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
		l.session.events.loginRefused(name, "", reply, why)
	}
	return challenge, reply
}

// LoginRefused implements wire.LoginRefusalObserver: a login that wire refused by itself, or that the client gave up.
func (s *session) LoginRefused(mechanism, why string, reply mail.Reply) {
	name := ""
	if s.login != nil {
		name, _ = s.login.Refusal()
		s.login = nil
	}
	s.events.loginRefused(name, mechanism, reply, errors.New(why))
}
