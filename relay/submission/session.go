package submission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/spool"
	"postern/relay/wire"
)

// session is one client connection: the verbs of the protocol, top to bottom. wire has parsed what it
// is given, keeps the order of commands, and calls from one goroutine at a time.
type session struct {
	service  *Service
	conn     *wire.Conn
	listener config.Listener // its block in settings
	settings *Settings       // in force at the last MAIL, before that when the connection came
	events   *eventLog

	identity  auth.Identity
	effective policy.Effective
	known     bool           // identity is set
	waiver    waiver         // why no login was needed
	login     *login         // the exchange under way, nil between them
	since     time.Time      // when it was verified
	looked    time.Time      // when its source was asked about it last
	accounts  uint64         // Accounts.Generation at that time
	envelope  *mail.Envelope // of the transaction under way, nil between them
	repairs                  // of the transaction, and wire tells of its own
}

// NewSession makes sessions of a listener.
func (s *Service) NewSession(l config.Listener) func(*wire.Conn) (wire.Session, mail.Reply) {
	return func(c *wire.Conn) (wire.Session, mail.Reply) {
		ses := &session{service: s, conn: c, listener: l, settings: s.Settings(), events: s.newEventLog(c, l)}
		block, err := ses.listenerIn(ses.settings) // a reload may be half done
		if err != nil {
			return ses, replyListener
		}
		ses.listener = block
		switch {
		case !c.Placed():
		case block.Auth == config.AuthNetwork:
			return ses, ses.admit(c)
		case block.IsAppliance():
			ses.admitDevice()
		}
		return ses, mail.Reply{}
	}
}

// admit gives a client that was let in by its network the account that the listener names. The
// networks themselves are checked by wire before the greeting.
func (s *session) admit(c *wire.Conn) mail.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.since, s.accounts = time.Now(), s.service.Accounts.Generation()
	identity, err := s.service.Accounts.Lookup(ctx, s.listener.Login)
	if err != nil {
		s.events.noAccount(s.listener.Login, err)
		return replyNoAccount
	}
	s.waiver.by = byNetwork
	s.become(identity)
	s.events.loggedIn(identity)
	return mail.Reply{}
}

func (s *session) become(identity auth.Identity) {
	s.identity, s.known, s.looked = identity, true, time.Now()
	s.effective = s.settings.Policy.For(policy.Subject{
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
	n, now := s.service.Accounts.Generation(), s.service.Settings()
	if n == s.accounts && now == s.settings && !s.due() {
		return s.waiver.check(time.Now())
	}
	block, identity, err := s.look(ctx, now)
	if err != nil {
		return err
	}
	s.accounts, s.settings, s.listener = n, now, block
	s.become(identity)
	return nil
}

// due reports that the source of the account does not tell of changes, and was not asked for a while.
func (s *session) due() bool {
	if end := s.identity.Expires; !end.IsZero() && !time.Now().Before(end) {
		return true
	}
	return s.identity.Recheck > 0 && time.Since(s.looked) >= s.identity.Recheck
}

// stands returns why the open transaction may not end in a 250: an account that is locked, removed or moved while its
// message is under way sends nothing.
func (s *session) stands(ctx context.Context) error {
	now := s.service.Settings()
	if s.service.Accounts.Generation() == s.accounts && now == s.settings {
		return s.waiver.check(time.Now())
	}
	_, _, err := s.look(ctx, now)
	return err
}

// look checks that this session could begin now: a connection must not outlive its listener's consent, nor the lock,
// removal, new networks or new password of its login.
func (s *session) look(ctx context.Context, now *Settings) (config.Listener, auth.Identity, error) {
	block, err := s.listenerIn(now)
	if err != nil {
		return block, auth.Identity{}, mail.Refuse(replyListener, err)
	}
	if err := s.waiver.check(time.Now()); err != nil || s.waiver.by == byLearning {
		return block, s.identity, err
	}
	identity, err := s.service.Accounts.Renew(ctx, s.identity, s.since)
	switch {
	case errors.Is(err, auth.ErrLocked), errors.Is(err, auth.ErrUnknownLogin):
		return block, identity, mail.Refuse(replyAccount, err)
	case err != nil:
		return block, identity, err
	case !identity.Allows(s.conn.Client().Addr()):
		return block, identity, mail.Refuse(replyAccount, auth.ErrNetwork)
	}
	if s.waiver.by != byLogin {
		return block, identity, nil
	}
	if s.service.changedSince(identity, s.since) {
		return block, identity, mail.Refuse(replyAccount,
			errors.New("the account was changed since this session logged in"))
	}
	return block, identity, nil
}

// listenerIn returns the block that the listener has in a configuration, or why that would not have let this
// session in. Address and TLS of a connection may stay what they were.
func (s *session) listenerIn(in *Settings) (config.Listener, error) {
	i := slices.IndexFunc(in.Listeners, func(l config.Listener) bool { return l.Name == s.listener.Name })
	if i < 0 {
		return config.Listener{}, errors.New("the listener is no longer in the configuration")
	}
	block, client := in.Listeners[i], s.conn.Client().Addr().Unmap().WithZone("")
	switch {
	// wire lets the others do nothing
	case s.conn.Placed() && len(block.Networks) > 0 && !block.Networks.Contains(client):
		return block, fmt.Errorf("%s is no longer in the networks of the listener", client)
	case block.Auth != s.listener.Auth || block.Login != s.listener.Login:
		return block, errors.New("auth or login of the listener was changed")
	case block.Auth == config.AuthNetwork && !slices.Equal(block.ProxyProtocol, s.listener.ProxyProtocol):
		return block, errors.New("proxy_protocol of the listener was changed, and with it which address a client has")
	}
	return block, nil
}

// changedSince reports whether an account may have got another password after a login. Until a change was seen
// the old password was remembered, hence the margin; a new account had no old one.
func (s *Service) changedSince(u auth.Identity, login time.Time) bool {
	if u.Changed.After(u.Created) {
		login = login.Add(-s.AccountDelay)
	}
	return u.Changed.After(login)
}

// Auth begins a SASL exchange (RFC 4954). wire offers it only where passwords may travel.
func (s *session) Auth(ctx context.Context, mechanism string) (wire.Exchange, mail.Reply) {
	return s.newLogin(mechanism)
}

// Authenticated implements wire.Session.
func (s *session) Authenticated() bool { return s.known }

// ReplaceSender implements wire.SenderReplacer: where From is rewritten so is the reverse-path, which may then be
// malformed. So may that of an old device.
func (s *session) ReplaceSender(path string) (mail.Address, bool) {
	if !s.known {
		return mail.Address{}, false
	}
	if err := s.renew(context.Background()); err != nil {
		return mail.Address{}, true // Mail finds the same, and answers with it
	}
	if s.listener.IsAppliance() {
		return s.repairs.unreadable(path, s.effective.FirstSender())
	}
	return s.effective.FirstSender(), s.effective.Rewrites()
}

// Mail begins a transaction: may this login use the reverse-path, and is there room for a message?
func (s *session) Mail(ctx context.Context, env mail.Envelope) mail.Reply {
	s.envelope = nil
	s.repairs.begin()
	if err := s.renew(ctx); err != nil {
		return s.events.reject(env.From, "", replyFor(err), err)
	}
	if err := s.service.Room.Full(); err != nil && !s.handsOff() {
		reply, own := mail.ReplyFor(err)
		if !own {
			reply = replyFull
		}
		return s.events.reject(env.From, "", reply, err)
	}
	if !env.From.IsNull() && !s.effective.MaySend(env.From) {
		repaired := false
		if s.listener.IsAppliance() {
			env.From, repaired = s.repairs.local(env.From, s.effective.FirstSender())
		}
		switch {
		case repaired:
		case s.effective.Rewrites():
			env.From = s.effective.FirstSender()
		default:
			return s.events.reject(env.From, "", s.effective.SenderRefusal(env.From), nil)
		}
	}
	s.envelope = &env
	return replySender
}

// handsOff reports whether the session's next message may be taken although it cannot be kept.
func (s *session) handsOff() bool {
	return s.service.Room.Away() != nil && s.listener.Handoff > 0 && s.waiver.by != byLearning
}

// Rcpt adds a recipient. wire has counted them.
func (s *session) Rcpt(ctx context.Context, r mail.Recipient) mail.Reply {
	if !s.effective.RecipientAllowed(r.To) {
		return s.events.reject(s.envelope.From, r.To.String(), s.effective.RecipientRefusal(r.To), nil)
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
		return s.events.reject(env.From, "", replyFor(err), err)
	}
	buffer := s.service.Spool.Buffer(env.Size)
	raw, err := fill(buffer, t)
	if err == nil {
		err = s.stands(ctx)
	}
	if err != nil {
		buffer.Close()
		return s.events.reject(env.From, "", replyFor(err), err)
	}
	u := &submission{service: s.service, session: s, envelope: *env, raw: raw, octets: newHolder(buffer),
		eightBit: t.EightBit(), longLines: t.LongLines(), now: time.Now(), notes: s.repairs.made}
	if n := t.RepairedLineEnds(); n > 0 {
		u.notes = append(u.notes, fmt.Sprintf("%d line ends became CR LF", n))
	}
	reply, err := u.run(ctx)
	if err != nil {
		return s.events.rejectMessage(u.refused, env.From, u.recipient(), replyFor(err), err)
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

// Refused implements wire.RefusalObserver: a command that was refused before it could mean anything.
func (s *session) Refused(command string, reply mail.Reply) {
	from := ""
	if s.envelope != nil {
		from = s.envelope.From.String()
	}
	s.events.refusedCommand(command, from, reply)
}

// Reset implements wire.Session: the transaction is over, whatever became of it.
func (s *session) Reset() { s.envelope = nil }

// Close implements wire.Session.
func (s *session) Close() { s.envelope = nil }
