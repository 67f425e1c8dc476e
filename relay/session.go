package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"postern/auth"
	"postern/internal/logline"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/spool"
	"postern/relay/trace"
	"postern/relay/wire"
)

// session is one client connection: the verbs of the protocol, top to bottom. wire has parsed what it
// is given, keeps the order of commands, and calls from one goroutine at a time.
type session struct {
	srv      *Server
	conn     *wire.Conn
	listener config.Listener // its block in state
	state    *state          // the configuration in force at the last MAIL, before that when the connection came
	log      *slog.Logger

	identity  auth.Identity
	effective policy.Effective
	known     bool           // identity is set
	login     *login         // the exchange under way, nil between them
	since     time.Time      // when it was verified
	accounts  uint64         // Server.accounts at that time
	envelope  *mail.Envelope // of the transaction under way, nil between them
}

func (s *Server) newSession(l config.Listener) func(*wire.Conn) (wire.Session, mail.Reply) {
	return func(c *wire.Conn) (wire.Session, mail.Reply) {
		st := s.state.Load()
		ses := &session{srv: s, conn: c, listener: l, state: st,
			log: s.log.With("session", c.ID(), "listener", l.Name)}
		block, err := ses.listenerIn(st) // a reload may be half done
		if err != nil {
			return ses, replyListener
		}
		ses.listener = block
		if block.Auth == config.AuthNetwork && c.Placed() {
			return ses, ses.admit(c)
		}
		return ses, mail.Reply{}
	}
}

// replyNoAccount is for clients of a listener whose account is locked or not there. The session tells of it, which knows
// the login.
var replyNoAccount = mail.R(421, "4.7.0", "the account of this listener cannot be used; the operator's log says why")

// admit gives a client that was let in by its network the account that the listener names. The
// networks themselves are checked by wire before the greeting.
func (s *session) admit(c *wire.Conn) mail.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.since, s.accounts = time.Now(), s.srv.accounts.Load()
	identity, err := s.srv.auth.Lookup(ctx, s.listener.Login)
	if err != nil {
		if s.refusal(trace.Event{Kind: trace.Refused, Login: s.listener.Login, Reply: replyNoAccount, Detail: mail.Reason(err)}) {
			s.log.Error("the account of this listener cannot be used", "login", s.listener.Login, "client", c.Client().Addr(),
				"err", mail.Reason(err))
		}
		return replyNoAccount
	}
	s.become(identity)
	s.log = s.log.With("login", identity.Login)
	return mail.Reply{}
}

func (s *session) become(identity auth.Identity) {
	s.identity, s.known = identity, true
	s.effective = s.state.policy.For(policy.Subject{
		Login:    identity.Login,
		Groups:   identity.Groups,
		Senders:  identity.Senders,
		Client:   s.conn.Client().Addr(),
		Listener: s.listener.Name,
	})
}

// renew takes over, at MAIL, what has changed since the last one: the configuration, so that a reload holds for
// open sessions too, and the account. A transaction goes on with what it began with.
func (s *session) renew(ctx context.Context) error {
	n, st := s.srv.accounts.Load(), s.srv.state.Load()
	if n == s.accounts && st == s.state {
		return nil
	}
	block, identity, err := s.look(ctx, st)
	if err != nil {
		return err
	}
	s.accounts, s.state, s.listener = n, st, block
	s.become(identity)
	return nil
}

// stands returns why the open transaction may not end in a 250: whoever is locked, removed or moved while a message is on its
// way does not get it through.
func (s *session) stands(ctx context.Context) error {
	st := s.srv.state.Load()
	if s.srv.accounts.Load() == s.accounts && st == s.state {
		return nil
	}
	_, _, err := s.look(ctx, st)
	return err
}

// look asks whether this session could begin now: a connection that is logged in must not outlive its listener's
// consent, or the lock, the removal, the networks or the password of its login.
func (s *session) look(ctx context.Context, st *state) (config.Listener, auth.Identity, error) {
	block, err := s.listenerIn(st)
	if err != nil {
		return block, auth.Identity{}, mail.Refuse(replyListener, err)
	}
	identity, err := s.srv.auth.Lookup(ctx, s.identity.Login)
	switch {
	case errors.Is(err, auth.ErrLocked), errors.Is(err, auth.ErrUnknownLogin):
		return block, identity, mail.Refuse(replyAccount, err)
	case err != nil:
		return block, identity, err
	case !identity.Allows(s.conn.Client().Addr()):
		return block, identity, mail.Refuse(replyAccount, auth.ErrNetwork)
	}
	if block.Auth == config.AuthNetwork {
		return block, identity, nil
	}
	u, err := s.srv.store.User(ctx, identity.Login)
	switch {
	case err != nil:
		return block, identity, err
	case changedSince(u, s.since):
		return block, identity, mail.Refuse(replyAccount, errors.New("the account was changed since this session logged in"))
	}
	return block, identity, nil
}

// listenerIn returns the block that the listener has in a configuration, or why that would not have let this
// session in. Address and TLS of a connection may stay what they were.
func (s *session) listenerIn(st *state) (config.Listener, error) {
	i := slices.IndexFunc(st.config.Listeners, func(l config.Listener) bool { return l.Name == s.listener.Name })
	if i < 0 {
		return config.Listener{}, errors.New("the listener is no longer in the configuration")
	}
	block, client := st.config.Listeners[i], s.conn.Client().Addr().Unmap().WithZone("")
	switch {
	case s.conn.Placed() && len(block.Networks) > 0 && !block.Networks.Contains(client): // wire lets the others do nothing
		return block, fmt.Errorf("%s is no longer in the networks of the listener", client)
	case block.Auth != s.listener.Auth || block.Login != s.listener.Login:
		return block, errors.New("auth or login of the listener was changed")
	case block.Auth == config.AuthNetwork && !slices.Equal(block.ProxyProtocol, s.listener.ProxyProtocol):
		return block, errors.New("proxy_protocol of the listener was changed, and with it which address a client has")
	}
	return block, nil
}

// changedSince reports whether a user may have got another password after a login. Until a change was seen
// the old password was remembered, hence the margin; a new account had no old one.
func changedSince(u auth.User, login time.Time) bool {
	if u.Changed.After(u.Created) {
		login = login.Add(-2 * storePoll)
	}
	return u.Changed.After(login)
}

// Auth begins a SASL exchange (RFC 4954). wire offers it only where passwords may travel.
func (s *session) Auth(ctx context.Context, mechanism string) (wire.Exchange, mail.Reply) {
	return s.newLogin(mechanism)
}

func (s *session) authenticate(ctx context.Context, _, login, password string) mail.Reply {
	client := s.conn.Client().Addr()
	s.since, s.accounts = time.Now(), s.srv.accounts.Load() // before: what changes meanwhile is looked at
	identity, err := s.srv.auth.Authenticate(ctx, login, password, client)
	if err != nil {
		reply := replyFor(err)
		s.loginRefused(login, "", reply, err)
		return reply
	}
	s.srv.metrics.auth.WithLabelValues("ok").Inc()
	s.become(identity)
	s.log = s.log.With("login", identity.Login)
	return mail.R(235, "2.7.0", "authenticated")
}

// Authenticated implements wire.Session.
func (s *session) Authenticated() bool { return s.known }

// Mail begins a transaction: may this login use the reverse-path, and is there room for a message?
func (s *session) Mail(ctx context.Context, env mail.Envelope) mail.Reply {
	s.envelope = nil
	if err := s.renew(ctx); err != nil {
		return s.reject(env.From, "", replyFor(err), err)
	}
	if err := s.srv.room(); err != nil {
		return s.reject(env.From, "", replyFull, err)
	}
	if !env.From.IsNull() && !s.effective.MaySend(env.From) {
		if !s.effective.Rewrites() {
			return s.reject(env.From, "", s.effective.SenderRefusal(env.From), nil)
		}
		env.From = s.effective.FirstSender()
	}
	s.envelope = &env
	return replySender
}

// Rcpt adds a recipient. wire has counted them.
func (s *session) Rcpt(ctx context.Context, r mail.Recipient) mail.Reply {
	if !s.effective.RecipientAllowed(r.To) {
		return s.reject(s.envelope.From, r.To.String(), s.effective.RecipientRefusal(r.To), nil)
	}
	s.envelope.Recipients = append(s.envelope.Recipients, r)
	return replyRecipient
}

// Data takes the message and answers what became of it. It returns only when the message is the
// upstream's, durable in the store, or refused.
func (s *session) Data(ctx context.Context, t *wire.Transfer) mail.Reply {
	env := s.envelope
	s.envelope = nil
	if err := s.stands(ctx); err != nil { // wire reads the message to its end, and nobody keeps it
		return s.reject(env.From, "", replyFor(err), err)
	}
	buffer := s.srv.spool.Buffer(env.Size)
	raw, err := fill(buffer, t)
	if err == nil {
		err = s.stands(ctx)
	}
	if err != nil {
		buffer.Close()
		return s.reject(env.From, "", replyFor(err), err)
	}
	sub := &submission{session: s, envelope: *env, raw: raw, octets: newHolder(buffer), eightBit: t.EightBit(), longLines: t.LongLines(), now: time.Now()}
	reply, err := sub.run(ctx)
	if err != nil {
		return s.reject(env.From, sub.recipient(), reply, err)
	}
	return reply
}

// fill reads a transfer to its end.
func fill(b *spool.Buffer, t *wire.Transfer) (mail.Content, error) {
	if _, err := t.WriteTo(b); err != nil {
		return nil, err
	}
	return b.Content()
}

// Refused implements wire.Witness: a command that was refused before it could mean anything.
func (s *session) Refused(command string, reply mail.Reply) {
	e := trace.Event{Kind: trace.Rejected, Reply: reply, Detail: command}
	s.srv.metrics.rejected.WithLabelValues(s.listener.Name, codeClass(reply)).Inc()
	if s.envelope != nil {
		e.From = s.envelope.From.String()
	}
	if s.refusal(e) {
		s.log.Info("refused", logline.Pairs("client", s.conn.Client().Addr(), "from", e.From, "command", command,
			"reply", reply.String())...)
	}
}

// Reset implements wire.Session: the transaction is over, whatever became of it.
func (s *session) Reset() { s.envelope = nil }

// Close implements wire.Session.
func (s *session) Close() { s.envelope = nil }

// reject traces and logs a refusal, as far as its login has not too many of them, and returns its reply. err, for the log, may be nil.
func (s *session) reject(from mail.Address, to string, reply mail.Reply, err error) mail.Reply {
	s.srv.metrics.rejected.WithLabelValues(s.listener.Name, codeClass(reply)).Inc()
	s.srv.lacked(reply, err)
	if !s.refusal(trace.Event{Kind: trace.Rejected, From: from.String(), To: to, Reply: reply, Detail: mail.Reason(err)}) {
		return reply
	}
	level := slog.LevelInfo
	if reply == replyLocal || reply == replyFull {
		level = slog.LevelError // ours to mend
	}
	s.log.Log(context.Background(), level, "refused", logline.Pairs("client", s.conn.Client().Addr(), "from", from.String(),
		"rcpt", to, "reply", reply.String(), "err", logline.Beside(reply, mail.Reason(err)))...)
	return reply
}

// refusal traces a refusal and reports whether to log it too: see trace.Recorder.Refusal.
func (s *session) refusal(e trace.Event) bool { return s.srv.trace.Refusal(s.event(e)) }

// record traces an event of this session.
func (s *session) record(e trace.Event) { s.srv.trace.Record(s.event(e)) }

// event fills in what an event of this session has to say of it.
func (s *session) event(e trace.Event) trace.Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Session, e.Listener, e.Client = s.conn.ID(), s.listener.Name, s.conn.Client().Addr().String()
	if e.Login == "" {
		e.Login = s.identity.Login
	}
	return e
}

func codeClass(r mail.Reply) string {
	if r.Temporary() {
		return "4yz"
	}
	return "5yz"
}
