// Package submission takes a message from MAIL to its reply. A session is one client connection, its verbs from top to
// bottom in session.go; a submission is one message, its steps in the order of submission.go: read the header, check
// authors, repair the body, count against the limits, complete, hand off.
//
// Failure semantics: a client gets 250 only when an upstream has taken the message or the queue has committed it. A
// refusal carries a reply that explains it. Any other failure is our own trouble: temporary, with a neutral reply.
// reply.go is the only place where an error becomes a reply. The attempt of a hand-off continues if the client goes
// away; Wait waits for it.
package submission

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"postern/auth"
	"postern/internal/logline"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/queue"
	"postern/relay/spool"
	"postern/relay/trace"
	"postern/relay/wire"
)

// Settings are what sessions take from a configuration. They never change once they are published.
type Settings struct {
	Hostname  string
	Listeners []config.Listener
	Policy    *policy.Policy
	Expire    time.Duration // how long the queue tries
	StoreSize int64         // octets that all queued mail may have; 0: any
}

// Accounts know who may log in.
type Accounts interface {
	Authenticate(ctx context.Context, login, password string, client netip.Addr) (auth.Identity, error)
	// Scram, Cram, Token and Certificate are Authenticate for other proofs.
	Scram(ctx context.Context, login string, client netip.Addr) (*auth.ScramTrial, error)
	Cram(ctx context.Context, login string, answer auth.CramAnswer, client netip.Addr) (auth.Identity, error)
	Token(ctx context.Context, login, token string, client netip.Addr) (auth.Identity, auth.TokenChallenge, error)
	Certificate(ctx context.Context, chain []*x509.Certificate, roots *x509.CertPool, login string, client netip.Addr) (
		auth.Identity, error)
	// Lookup is Authenticate for a login that has proved itself already.
	Lookup(ctx context.Context, login string) (auth.Identity, error)
	// Renew is Lookup for a session that logged in at since as was.
	Renew(ctx context.Context, was auth.Identity, since time.Time) (auth.Identity, error)
	// Generation rises when accounts change: open sessions then look at theirs again.
	Generation() uint64
	// Lock locks a login that went over a limit whose policy says so.
	Lock(ctx context.Context, login, why string)
}

// Room says whether there is room for new mail.
type Room interface {
	// Full returns nil while there is room for any message, else why there is none.
	Full() error
	// Away returns why the database is away while mail may be handed off all the same, else nil.
	Away() error
	// Refused hears of each refusal: a large message may not fit where small ones do.
	Refused(mail.Reply, error)
}

// Outbound is the way out of a message.
type Outbound interface {
	// InParts reports that the recipients of a message do not fit into one transaction.
	InParts(m *queue.Message) bool
	// ReserveNow takes a slot that is free now and that nobody was promised.
	ReserveNow(now time.Time, m *queue.Message) (queue.Slot, queue.Wait)
}

// Options are what a Service is made of.
type Options struct {
	Settings func() *Settings // in force now
	Accounts Accounts
	// Devices are those that need no login; nil: there are none. OwnSenders are patterns of the senders that somebody
	// who is not known yet may use.
	Devices    *devices.Table
	OwnSenders func(context.Context) ([]string, error)
	// AccountDelay is how long a change of an account may go unnoticed.
	AccountDelay time.Duration
	Limiter      *policy.Limiter
	Room         Room
	Spool        *spool.Spool
	Queue        *queue.Queue
	List         func(context.Context, queue.Filter) ([]*queue.Message, error) // of the store
	Outbound     Outbound
	Result       func(trace.Event) // hears what became of each recipient in a hand-off
	Stopping     <-chan struct{}   // closed when the shutdown begins
	Trace        *trace.Recorder
	Logger       *slog.Logger
	Metrics      prometheus.Registerer
}

// Service is what the sessions of all listeners share.
type Service struct {
	Options
	held     *heldMail
	patience patience
	waiters  func(key string) int // of the queue
	lifetime context.Context      // of attempts made while a client waits; it outlives the sessions
	attempts sync.WaitGroup

	accepted, acceptedBytes, rejected, refused, auth, overLimit *prometheus.CounterVec
}

// New makes a Service. ctx cuts the attempts of hand-offs when it ends; their sessions may be gone by then.
func New(ctx context.Context, o Options) *Service {
	if o.Devices == nil {
		o.Devices = new(devices.Table)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Service{
		Options: o, held: newHeldMail(o.List), lifetime: ctx, waiters: o.Queue.Waiters,
		accepted: counter("postern_messages_accepted_total", "Messages answered 250, by how: handed off, queued, held.",
			"listener", "how"),
		acceptedBytes: counter("postern_messages_accepted_bytes_total", "Octets of messages answered 250.", "listener"),
		rejected: counter("postern_commands_rejected_total", "MAIL, RCPT and messages refused, by class of the reply.",
			"listener", "reply"),
		refused: counter("postern_sessions_refused_total", "Connections turned away before any message, by reason.",
			"listener", "reason"),
		auth: counter("postern_auth_total", "Logins, by outcome: ok, refused.", "outcome"),
		overLimit: counter("postern_limit_exceeded_total", "Messages over a limit of their login, by what was done.",
			"action"),
	}
}

// Wait waits for the attempts that hand-offs have begun.
func (s *Service) Wait() { s.attempts.Wait() }

// Recount discards the counts of held mail: the queue or its bound may have changed.
func (s *Service) Recount() { s.held.forget() }

// maxDetail bounds what a refused session says in the trace, in octets: a failed handshake names versions and suites.
const maxDetail = 720

// Refused traces a connection that a listener turned away before any message.
func (s *Service) Refused(listener string, r wire.Refusal) {
	s.refused.WithLabelValues(listener, string(r.Reason)).Inc()
	if r.Reply == replyNoAccount {
		return // the session has told of it
	}
	told := s.Trace.Refusal(trace.Event{Kind: trace.Refused, Session: r.Session, Listener: listener,
		Client: r.Client.Addr().String(), Hello: s.helloOf(listener, r.Hello), Reply: r.Reply,
		Detail: mail.Printable(mail.Cut(string(r.Reason)+": "+r.Detail, maxDetail))})
	if !told {
		return
	}
	s.Logger.Info("session refused", logline.Pairs("listener", listener, "session", r.Session, "client",
		r.Client.String(),
		"reason", r.Reason, "detail", logline.Beside(r.Reply, r.Detail), "reply", r.Reply.String())...)
}
