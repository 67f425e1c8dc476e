package submission

import (
	"context"
	"crypto/x509"
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
	exchange, err := auth.NewExchange(mechanism, l.checks())
	if err != nil {
		return nil, replyNoMechanism
	}
	l.Exchange, s.login = exchange, l
	s.since, s.accounts = time.Now(), s.service.Accounts.Generation() // before: what changes meanwhile is looked at
	return l, mail.Reply{}
}

// checks are what the exchange asks of the accounts.
func (l *login) checks() auth.Checks {
	s := l.session
	client, accounts := s.conn.Client().Addr(), s.service.Accounts
	c := auth.Checks{Done: l.succeeded, Hostname: s.settings.Hostname}
	for _, b := range s.conn.Bindings() {
		c.Bindings = append(c.Bindings, auth.Binding(b))
	}
	c.Password = func(ctx context.Context, _, name, password string) mail.Reply {
		id, err := accounts.Authenticate(ctx, name, password, client)
		return l.ended(name, id, err)
	}
	c.Scram = func(ctx context.Context, name string) (*auth.ScramTrial, mail.Reply) {
		t, err := accounts.Scram(ctx, name, client)
		return t, l.refused(name, err)
	}
	c.ScramEnd = func(ctx context.Context, t *auth.ScramTrial, right bool, proof string) (auth.Identity, mail.Reply) {
		id, err := t.Finish(ctx, right, proof)
		name, _ := l.Refusal()
		return id, l.refused(name, err)
	}
	c.Cram = func(ctx context.Context, name string, answer auth.CramAnswer) mail.Reply {
		id, err := accounts.Cram(ctx, name, answer, client)
		return l.ended(name, id, err)
	}
	c.Token = func(ctx context.Context, name, token string) (mail.Reply, auth.TokenChallenge) {
		id, challenge, err := accounts.Token(ctx, name, token, client)
		return l.ended(name, id, err), challenge
	}
	c.Certificate = func(ctx context.Context, name string) mail.Reply {
		var chain []*x509.Certificate
		if state := s.conn.TLS(); state != nil {
			chain = state.PeerCertificates
		}
		id, err := accounts.Certificate(ctx, chain, s.conn.ClientCAs(), name, client)
		return l.ended(name, id, err)
	}
	return c
}

// refused tells of a login that was refused; the zero reply if it was not.
func (l *login) refused(name string, err error) mail.Reply {
	if err == nil {
		return mail.Reply{}
	}
	l.checked = true
	reply := replyFor(err)
	l.session.events.loginRefused(name, "", reply, err)
	return reply
}

func (l *login) ended(name string, id auth.Identity, err error) mail.Reply {
	if r := l.refused(name, err); !r.IsZero() {
		return r
	}
	return l.succeeded(id)
}

func (l *login) succeeded(identity auth.Identity) mail.Reply {
	s := l.session
	l.checked = true
	s.service.auth.WithLabelValues("ok").Inc()
	s.waiver = waiver{}
	s.become(identity)
	s.events.loggedIn(identity)
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
