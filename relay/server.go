// Package relay is the server: it joins listeners, logins, policy, queue and upstreams to the path of a
// message that docs/flow.md describes.
//
// Failure semantics: a client gets 250 only when the upstream has taken the message or the store has
// committed it. New refuses to make a server of a configuration, key or certificate that it cannot use
// in full. Run returns when everything it started has ended; what was accepted is then the upstream's
// or in the store.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"postern/admin"
	"postern/auth"
	"postern/certs"
	"postern/internal/logline"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/spool"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// Options are what a Server is made of.
type Options struct {
	Config *config.Config
	Logger *slog.Logger
	// Load reads the configuration again for a reload; nil: it cannot change.
	Load func() (*config.Config, error)
	// Ready is called once when every listener accepts.
	Ready   func()
	Version string // for postern status
}

// Bounds of a shutdown: how long clients may finish a transaction, and attempts past the final dot
// their reply.
const (
	clientDrain  = 10 * time.Second
	attemptDrain = 20 * time.Second
)

// Server is a running relay. Its state is swapped whole at a reload; everything else lives as long as
// the server.
type Server struct {
	log     *slog.Logger
	options Options
	store   *relaystore.Store
	journal *relaystore.Journal
	spool   *spool.Spool
	trace   *trace.Recorder
	auth    *auth.Authenticator
	certs   *certs.Manager
	limiter *policy.Limiter
	held    *heldMail
	queue   *queue.Queue
	metrics *metrics
	alerts  *alerts

	dispatch *dispatcher
	state    atomic.Pointer[state]
	trimmed  sync.Once             // said that the history is at its bound
	noRoom   atomic.Pointer[error] // why no new mail is taken, nil while it is
	lack     atomic.Pointer[lack]
	roomMu   sync.Mutex             // guards changes of noRoom, so that each is logged once
	serving  atomic.Bool            // every listener accepts
	refused  atomic.Pointer[string] // why the last reload changed nothing, nil: it did
	began    time.Time
	accounts atomic.Uint64 // rises when accounts change: open sessions look at theirs again

	deliveries     context.Context // of attempts made while a client waits; outlives the sessions
	stopDeliveries context.CancelFunc
	attempts       sync.WaitGroup

	clients  sync.WaitGroup // of listeners
	draining chan struct{}  // closed when the shutdown begins
	fail     context.CancelCauseFunc

	reloading sync.Mutex // one change of state at a time
	stopping  bool       // guarded by reloading: nothing changes any more
	mu        sync.Mutex // guards listeners
	listeners map[string]*listener
	admin     net.Listener
}

// New makes a server: it opens the store, reads keys and certificates, and refuses what it cannot use.
// Nothing listens yet.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	c := o.Config
	s := &Server{log: o.Logger, options: o, began: time.Now(), listeners: make(map[string]*listener), draining: make(chan struct{})}
	s.dispatch = &dispatcher{s}
	s.deliveries, s.stopDeliveries = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.store, err = relaystore.Open(ctx, relaystore.Options{
		Dir: c.DataDir, Daemon: true, Logger: o.Logger,
		MaxBytes: int64(c.Store.MaxSize), MinFree: int64(c.Store.MinFree),
	})
	if err != nil {
		return nil, err
	}
	if s.journal, err = relaystore.OpenJournal(c.DataDir); err != nil {
		return nil, err
	}
	if s.spool, err = newSpool(filepath.Join(c.DataDir, "tmp")); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s)
	s.trace = trace.NewRecorder(s.store, o.Logger)
	if s.alerts, err = s.newAlerts(c); err != nil {
		return nil, err
	}
	if s.auth, err = s.newAuthenticator(ctx, c); err != nil {
		return nil, err
	}
	if s.limiter, err = policy.NewLimiter(ctx, s.store, time.Now(), s.log); err != nil {
		return nil, err
	}
	s.held = newHeldMail(s.store.List)
	if s.certs, err = certs.New(certOptions(c, o.Logger)); err != nil {
		return nil, err
	}
	st, err := s.newState(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	s.state.Store(st)
	st.runTokens()
	s.queue = s.newQueue(c)
	return s, nil
}

func newSpool(dir string) (*spool.Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return spool.New(spool.Options{Dir: dir})
}

func (s *Server) newAuthenticator(ctx context.Context, c *config.Config) (*auth.Authenticator, error) {
	pepper, err := s.store.Secret(ctx, auth.PepperName, auth.PepperSize)
	if err != nil {
		return nil, err
	}
	a := auth.New(auth.Options{
		Sources: []auth.Source{auth.NewStoreSource(s.store, pepper)},
		Lockout: lockout(c),
		OnLock:  s.lockedOut,
	})
	return a, s.recallLockout(ctx, a)
}

func lockout(c *config.Config) auth.Lockout {
	l := c.Auth.Lockout
	return auth.Lockout{Failures: l.Failures, Window: l.Window.Std(), Duration: l.Duration.Std()}
}

// lockedOut traces and tells that somebody guesses passwords.
func (s *Server) lockedOut(l auth.Lock) {
	s.alerts.lockedOut(l)
	e := trace.Event{Time: time.Now(), Kind: trace.AuthFail, Login: l.Login,
		Detail: fmt.Sprintf("too many different wrong passwords: locked out until %s", l.Until.Format(time.RFC3339))}
	if l.Client.IsValid() {
		e.Client = l.Client.String()
		if l.Client.IsSingleIP() {
			e.Client = l.Client.Addr().String()
		}
	}
	if s.trace.Refusal(e) {
		s.log.Warn("locked out", logline.Pairs("login", e.Login, "client", e.Client, "distinct_wrong_passwords", l.Failures,
			"until", l.Until.UTC().Format(time.RFC3339))...)
	}
}

func certOptions(c *config.Config, log *slog.Logger) certs.Options {
	return certs.Options{
		CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, Hostname: c.Hostname,
		Dir: filepath.Join(c.DataDir, "tls"), Names: c.TLS.SelfSignedNames, Logger: log,
	}
}

func (s *Server) newQueue(c *config.Config) *queue.Queue {
	return queue.New(queue.Options{
		Store: s.store, Journal: s.journal, Dispatcher: s.dispatch, Owner: "local",
		Schedule: schedule(c), Drain: attemptDrain,
		Report: s.report, Trace: s.recordResult, Logger: s.log,
	})
}

func schedule(c *config.Config) queue.Schedule {
	times := queue.Schedule{Expire: c.Delivery.Expire.Std(), WarnAfter: c.Delivery.WarnAfter.Std()}
	for _, d := range c.Delivery.Retry {
		times.Retry = append(times.Retry, d.Std())
	}
	return times
}

// Run listens and works until ctx ends or something that it cannot live without fails. It then shuts
// down in order: no new connections, transactions end, scheduling stops, attempts past the final dot
// end, everything is written, the store closes.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.bind(); err != nil {
		return err
	}
	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()

	var rest sync.WaitGroup
	queueCtx, stopQueue := context.WithCancel(context.WithoutCancel(ctx))
	defer stopQueue()
	queueDone := make(chan struct{})
	go func() {
		defer close(queueDone)
		if err := s.queue.Run(queueCtx); err != nil {
			s.fail(fmt.Errorf("queue: %w", err))
		}
	}()
	for _, work := range []func(context.Context){
		s.watchCertificates, s.alerts.run, s.limiter.Run, s.trace.Run, s.watchStore, s.watchConfig, s.prune, s.serveAdmin, s.listenStatus(),
	} {
		rest.Go(func() { work(background) })
	}
	select {
	case <-s.queue.Up(): // nobody submits to a queue that is not there
		s.serveAll()
	case <-ctx.Done():
		s.closeSockets()
	}
	<-ctx.Done()
	s.serving.Store(false)
	s.log.Info("shutting down")
	close(s.draining)
	s.stopReloads()
	s.shutdownListeners()
	s.clients.Wait()
	// Hand-offs whose clients are gone may end like those of the queue, then they are cut: an attempt cut
	// before its final dot has done nothing, one behind it says that its outcome is unknown.
	cut := time.AfterFunc(attemptDrain, s.stopDeliveries)
	stopQueue()
	<-queueDone
	s.attempts.Wait()
	cut.Stop()
	s.store.Hurry()
	stopBackground()
	rest.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (s *Server) serveAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		s.serve(l)
	}
	s.serving.Store(true)
	s.log.Info("ready", "hostname", s.state.Load().config.Hostname, "upstreams", len(s.state.Load().upstreams))
	if s.options.Ready != nil {
		s.options.Ready()
	}
}

// close ends what New opened. It is safe on a server that New did not finish.
func (s *Server) close() error {
	s.stopDeliveries()
	var errs []error
	bounded, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if st := s.state.Load(); st != nil {
		for _, up := range st.upstreams {
			errs = append(errs, up.Close(bounded))
		}
	}
	if s.limiter != nil {
		errs = append(errs, s.limiter.Close(bounded))
	}
	if s.auth != nil {
		errs = append(errs, s.saveLockout(bounded))
	}
	if s.trace != nil {
		errs = append(errs, s.trace.Close(bounded))
	}
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// room returns nil while there is room for new mail, else why there is none. Trouble is looked for each
// second; its end is looked for whenever somebody asks.
func (s *Server) room() error {
	if s.noRoom.Load() == nil {
		return nil
	}
	s.checkRoom()
	if err := s.noRoom.Load(); err != nil {
		return *err
	}
	return nil
}

// lack is a message that was refused for want of room, though smaller ones may fit.
type lack struct {
	at  time.Time
	err error
}

// lackLife is how long after it room still counts as short.
const lackLife = time.Minute

// lacked notes a message that was refused for want of room. Just below the bound of the queue small ones still pass, so
// the room that is left does not tell.
func (s *Server) lacked(reply mail.Reply, err error) {
	if err != nil && reply.Code == 452 && errors.Is(err, queue.ErrFull) {
		s.lack.Store(&lack{time.Now(), err})
	}
}

// shortage returns why mail is refused for want of room: all of it, or some within the last minute. nil: none is.
func (s *Server) shortage(now time.Time) error {
	if err := s.room(); err != nil {
		return err
	}
	if l := s.lack.Load(); l != nil && now.Sub(l.at) < lackLife {
		return l.err
	}
	return nil
}

// ready implements /readyz. While all upstreams are down it is ready all the same: mail is accepted and kept, and whoever would send
// clients elsewhere for that would turn their mail away.
func (s *Server) ready(context.Context) error {
	if !s.serving.Load() {
		return errors.New("the listeners are not up")
	}
	if err := s.room(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

var errLockedAlready = errors.New("the login is locked already")

// lock locks a login that went over a limit whose policy says so.
func (s *Server) lock(ctx context.Context, login, why string) {
	err := s.store.UpdateUser(ctx, login, func(u *auth.User) error {
		if u.Locked {
			return errLockedAlready
		}
		u.Locked, u.LockReason = true, why
		return nil
	})
	if errors.Is(err, errLockedAlready) {
		return
	}
	if err != nil {
		s.log.Error("cannot lock the login", "login", login, "err", err)
		return
	}
	s.auth.Forget(login)
	s.accounts.Add(1)
	s.log.Warn("login locked", "login", login, "reason", why)
	s.alerts.limitReached(login, why)
}

func (s *Server) upstreamChanged() { s.queue.Wake() }

func (s *Server) serveAdmin(ctx context.Context) {
	if s.admin == nil {
		return
	}
	names := func() []string {
		c := s.state.Load().config
		return append([]string{c.Hostname}, c.Admin.Names...)
	}
	if err := admin.Serve(ctx, s.admin, admin.Options{Ready: s.ready, Notes: s.notes, Gatherer: s.metrics.registry, Names: names, Logger: s.log}); err != nil {
		s.log.Error("admin stopped", "err", err)
	}
}
