package submission

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"postern/auth"
	"postern/internal/logline"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/trace"
	"postern/relay/wire"
)

// eventLog writes what happens in one session to log, trace and counters. Refusals of one login or address are rate
// limited in log and trace (trace.Recorder.Refusal) and always counted.
type eventLog struct {
	service *Service
	log     *slog.Logger
	base    *slog.Logger // without a login

	conn *wire.Conn

	session, listener, client, login string
	app                              string // name of the app password that the session logged in with
	appliance                        bool   // the listener is for old devices
}

func (s *Service) newEventLog(c *wire.Conn, l config.Listener) *eventLog {
	log := s.Logger.With("session", c.ID(), "listener", l.Name)
	return &eventLog{service: s, conn: c, log: log, base: log, session: c.ID(), listener: l.Name,
		client: c.Client().Addr().String(), appliance: l.IsAppliance()}
}

// loggedIn is called once the session has a login.
func (l *eventLog) loggedIn(id auth.Identity) {
	l.login, l.app, l.log = id.Login, id.AppName, l.base.With("login", id.Login)
	if id.App != "" {
		l.log = l.log.With("app_password", id.AppName)
	}
}

// reject records a refused MAIL, RCPT or message and returns its reply. err, for the log, may be nil.
func (l *eventLog) reject(from mail.Address, to string, reply mail.Reply, err error) mail.Reply {
	return l.rejectMessage("", from, to, reply, err)
}

// rejectMessage is reject for a message that has events by its id already: its upstream refused it while the client
// waited. id is "" for others.
func (l *eventLog) rejectMessage(id string, from mail.Address, to string, reply mail.Reply, err error) mail.Reply {
	l.service.rejected.WithLabelValues(l.listener, codeClass(reply)).Inc()
	l.service.Room.Refused(reply, err)
	e := trace.Event{Kind: trace.Rejected, ID: id, From: from.String(), To: to, Reply: reply, Detail: mail.Reason(err)}
	if !l.refusal(e) {
		return reply
	}
	level := slog.LevelInfo
	if reply == replyLocal || reply == replyFull {
		level = slog.LevelError // ours to mend
	}
	l.log.Log(context.Background(), level, "refused", logline.Pairs("client", l.client, "from", from.String(),
		"rcpt", to, "reply", reply.String(), "err", logline.Beside(reply, mail.Reason(err)))...)
	return reply
}

// refusedCommand records a command that wire refused. from is the reverse-path of the open transaction, if any.
func (l *eventLog) refusedCommand(command, from string, reply mail.Reply) {
	l.service.rejected.WithLabelValues(l.listener, codeClass(reply)).Inc()
	if l.refusal(trace.Event{Kind: trace.Rejected, From: from, Reply: reply, Detail: command}) {
		l.log.Info("refused", logline.Pairs("client", l.client, "from", from, "command", command,
			"reply", reply.String())...)
	}
}

// loginRefused records a login that failed.
func (l *eventLog) loginRefused(login, mechanism string, reply mail.Reply, why error) {
	login = mail.Printable(mail.Cut(login, 256))
	l.service.auth.WithLabelValues("refused").Inc()
	detail := cmp.Or(mail.Reason(why), "refused")
	if mechanism != "" {
		detail = mechanism + ": " + detail
	}
	if !l.refusal(trace.Event{Kind: trace.AuthFail, Login: login, Reply: reply, Detail: detail}) {
		return
	}
	if login == l.login {
		login = "" // is in every line of the session
	}
	l.log.Warn("login refused", logline.Pairs("login", login, "client", l.client, "mechanism", mechanism,
		"reply", reply.String(), "err", logline.Error(reply, why))...)
}

// noAccount records that the account of a listener cannot be used.
func (l *eventLog) noAccount(login string, err error) {
	why := mail.Reason(err)
	if l.refusal(trace.Event{Kind: trace.Refused, Login: login, Reply: replyNoAccount, Detail: why}) {
		l.log.Error("the account of this listener cannot be used", "login", login, "client", l.client, "err", why)
	}
}

// refusal traces a refusal and reports whether to log it too.
func (l *eventLog) refusal(e trace.Event) bool { return l.service.Trace.Refusal(l.event(e)) }

// record traces an event.
func (l *eventLog) record(e trace.Event) { l.service.Trace.Record(l.event(e)) }

// event fills in what every event of the session says of it.
func (l *eventLog) event(e trace.Event) trace.Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Session, e.Listener, e.Client = l.session, l.listener, l.client
	e.Login = cmp.Or(e.Login, l.login)
	if l.appliance {
		e.Hello = helloShown(l.conn.Helo())
	}
	if e.Kind == trace.Accepted || e.Kind == trace.AuthFail { // enough to see old devices
		if state := l.conn.TLS(); state != nil {
			e.TLS = tls.VersionName(state.Version)
		}
	}
	return e
}

func codeClass(r mail.Reply) string {
	if r.Temporary() {
		return "4yz"
	}
	return "5yz"
}

func helloShown(hello string) string { return mail.Printable(mail.Cut(hello, 64)) }
