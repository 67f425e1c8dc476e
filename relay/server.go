// Package relay is the server: it connects the packages that docs/flow.md leads through (wire, submission, queue,
// outbound, monitor), runs them, reloads their configuration, and decides nothing itself.
//
// Failure semantics: a client gets 250 only when the upstream has taken the message or the store has committed it. New
// refuses a configuration, key or certificate that it cannot use in full. Run returns when everything it started has
// ended; by then every accepted message is with the upstream or in the store.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"postern/admin"
	"postern/admin/access"
	"postern/auth"
	"postern/certs"
	"postern/certs/acme"
	"postern/internal/listen"
	"postern/internal/rights"
	"postern/operate"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/keyring"
	"postern/relay/monitor"
	"postern/relay/outbound"
	"postern/relay/queue"
	"postern/relay/sign"
	"postern/relay/spool"
	"postern/relay/stats"
	relaystore "postern/relay/store"
	"postern/relay/submission"
	"postern/relay/trace"
	"postern/relay/upstream/account"
)

// Options are what a Server is made of.
type Options struct {
	Config *config.Config
	Logger *slog.Logger
	// Load reads the configuration again for a reload; nil: it cannot change.
	Load func() (*config.Config, error)
	// Ready is called once when every listener accepts.
	Ready func()
	// Inherited are sockets that listen already. A [[listener]] takes over that of its address; the others are closed.
	Inherited []net.Listener
	// HandOver is called when an orderly shutdown begins, with the sockets of all listeners, before they are closed:
	// the next daemon may inherit them. nil: it does not. Nodes at one database have others that take their clients.
	HandOver func([]net.Listener)
	Version  string         // of this program
	DNS      keyring.Lookup // for DKIM keys; nil: they are not looked for, and new ones wait
	// Poll, required, is how often it looks for what others changed: accounts, keys, the queue, files.
	Poll time.Duration
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
	began   time.Time

	store      *relaystore.Store
	opened     map[string]int64 // its generations before anything was read; then of watchStore
	journal    *relaystore.Journal
	spool      *spool.Spool
	trace      *trace.Recorder
	stats      *stats.Counter
	certs      *certs.Manager
	companion  *certs.Companion
	acmeStore  *relaystore.ACME
	acme       *acme.Keeper // of certificates by ACME; without [tls.acme] it has nothing to do
	limiter    *policy.Limiter
	accounts   *accounts
	room       *monitor.Room
	monitor    *monitor.Monitor
	outbound   *outbound.Dispatcher
	unshare    func() // ends the sharing of accounts at upstreams; nil: there is none
	queue      *queue.Queue
	submission *submission.Service
	devices    *devices.Table
	listeners  *listeners
	admin      net.Listener        // nil: none is configured
	access     *access.Access      // who may into the console and the API; nil: they are off
	operations *operate.Operations // what people may do
	// where mail programs are told their settings
	mailPrograms *mailPrograms
	selfService  *selfService // where people make app passwords
	registry     *prometheus.Registry

	state       atomic.Pointer[state]
	refused     atomic.Pointer[string] // why the last reload changed nothing, nil: it did
	serving     atomic.Bool            // every listener accepts
	up          chan struct{}          // closed when every listener accepts
	draining    chan struct{}          // closed when the shutdown begins
	reloading   sync.Mutex             // one change of state at a time; guards what follows
	stopping    bool                   // nothing changes any more
	usersUnread time.Time              // since when a change of accounts could not be read; zero: there is none

	deliveries     context.Context // of sessions and of attempts made while a client waits; outlives the sessions
	stopDeliveries context.CancelFunc
	leaving        sync.WaitGroup // of what a reload took out
	fail           context.CancelCauseFunc
}

// New makes a server: it opens the store, reads keys and certificates, and refuses what it cannot use.
// Nothing listens yet.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Poll < time.Millisecond {
		return nil, fmt.Errorf("relay: Options.Poll is %s, less than a millisecond", o.Poll)
	}
	c := o.Config
	s := &Server{log: o.Logger, options: o, began: time.Now(), up: make(chan struct{}), draining: make(chan struct{})}
	s.deliveries, s.stopDeliveries = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.open(ctx, c); err != nil {
		return nil, err
	}
	s.registry = prometheus.NewRegistry()
	s.room = monitor.NewRoom(s.store.Writable, handsOff(c), s.log)
	if err := s.watch(c); err != nil {
		return nil, err
	}
	known := &accounts{store: s.store, room: s.room, monitor: s.monitor, trace: s.trace, log: s.log}
	if err := known.open(ctx, c); err != nil {
		return nil, err
	}
	s.accounts = known
	if s.devices = new(devices.Table); !s.devicesChanged(ctx) {
		return nil, errors.New("which devices are known cannot be read from the store")
	}
	if s.limiter, err = s.newLimiter(ctx, c); err != nil {
		return nil, err
	}
	if s.certs, err = certs.New(c.CertOptions(o.Logger)); err != nil {
		return nil, err
	}
	if s.companion, err = certs.NewCompanion(c.CompanionOptions(o.Logger)); err != nil {
		return nil, err
	}
	s.shareCertificates()
	if err := s.newACME(ctx, c); err != nil {
		return nil, err
	}
	sharing := s.newOutbound()
	s.queue = s.newQueue(c) // before the upstreams, whose pauses may end at once
	st, err := s.newState(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	s.state.Store(st)
	s.share(ctx, sharing)
	s.operations = s.newOperations()
	st.routes.Run()
	s.submission = submission.New(s.deliveries, submission.Options{
		Settings: func() *submission.Settings { return s.state.Load().settings },
		Accounts: s.accounts, Devices: s.devices, OwnSenders: s.ownSenders,
		AccountDelay: 2 * Poll, Limiter: s.limiter, Room: s.room, Spool: s.spool,
		Queue: s.queue, List: s.store.List, Outbound: s.outbound, Result: s.monitor.Result, Stopping: s.draining,
		Trace: s.trace, Logger: s.log, Metrics: s.registry,
	})
	s.listeners = &listeners{submission: s.submission, certs: s.certs, companion: s.companion,
		sessions: s.deliveries, log: s.log, withheld: s.accounts.keys.withheld,
		fail: func(err error) { s.fail(err) }, inherited: s.options.Inherited}
	if err := s.newPages(ctx, c); err != nil {
		return nil, err
	}
	s.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(o.Version),
		&gauges{s.store, s.listeners, s.inForce, s.trace, s.stats, s.certs, s.accounts.SourceStates,
			s.ready})
	return s, nil
}

// newLimiter makes what counts the limits: at a database it counts with the other nodes.
func (s *Server) newLimiter(ctx context.Context, c *config.Config) (*policy.Limiter, error) {
	if shared := s.store.SharedLimits(); shared != nil {
		return policy.NewSharedLimiter(shared, policy.SharedOptions{Local: handsOff(c)}, time.Now(), s.log), nil
	}
	return policy.NewLimiter(ctx, s.store, time.Now(), s.log)
}

// config is the configuration in force.
func (s *Server) config() *config.Config { return s.state.Load().config }

// inForce is the configuration in force, as package monitor wants it.
func (s *Server) inForce() monitor.InForce {
	st := s.state.Load()
	return monitor.InForce{Config: st.config, Routes: st.routes}
}

// handsOff reports whether mail is handed off while the database is away.
func handsOff(c *config.Config) bool { return c.Store.Degraded == config.DegradedHandoff }

// watch makes the monitor, which tells the hooks of the configuration.
func (s *Server) watch(c *config.Config) error {
	hooks, err := monitor.HooksOf(c)
	if err != nil {
		return err
	}
	o := monitor.Options{
		DataDir: c.DataDir, Look: 5 * s.options.Poll, InForce: s.inForce, Room: s.room, Store: s.store, Trace: s.trace,
		Logger: s.log, Metrics: s.registry,
		Certs: func() []certs.Info { return slices.Concat(s.certs.Info(), s.companion.Info()) },
		Lookup: func(ctx context.Context, login string) (auth.Identity, error) {
			return s.accounts.Lookup(ctx, login)
		},
	}
	if s.options.Load != nil {
		o.Examine = s.examine
	}
	s.monitor = monitor.New(o)
	s.monitor.Use(c.Hostname, hooks)
	return nil
}

// open opens what lies in the data directory.
func (s *Server) open(ctx context.Context, c *config.Config) (err error) {
	o := relaystore.Of(c)
	o.Daemon, o.Logger = true, s.log
	if s.store, err = relaystore.Open(ctx, o); err != nil {
		return err
	}
	if s.opened, err = s.store.Generations(ctx); err != nil {
		return err
	}
	s.opened[relaystore.TopicTraceAsked] = s.opened[relaystore.TopicTraceAnswered] // asked before we listened
	if s.access, err = NewAccess(ctx, c, s.store, s.log); err != nil {
		return err
	}
	if s.journal, err = relaystore.OpenJournal(c.DataDir); err != nil {
		return err
	}
	if err := usePrivacy(ctx, s.store, c.Privacy); err != nil {
		return err
	}
	s.trace = trace.NewRecorder(s.store, s.log)
	s.stats = stats.NewCounter(s.store, s.log)
	s.trace.CountWith(s.stats.Count)
	s.spool, err = newSpool(filepath.Join(c.DataDir, "tmp"))
	return err
}

// shareCertificates has nodes present the same self-signed pair, so that clients which were told to trust it trust it
// at the node that takes over, too.
func (s *Server) shareCertificates() {
	if !s.store.Shared() {
		return
	}
	if err := cmp.Or(s.certs.Share(s.store.ACME()), s.companion.Share(s.store.ACME())); err != nil {
		s.log.Warn("this node presents a self-signed certificate of its own: that of the nodes was not to be had",
			"err", err)
	}
}

func newSpool(dir string) (*spool.Spool, error) {
	if err := rights.MkdirAll(dir); err != nil {
		return nil, err
	}
	return spool.New(spool.Options{Dir: dir})
}

// newOutbound makes what sends. It returns what it shares with other nodes, which is to begin; nil: nothing.
func (s *Server) newOutbound() *account.Sharing {
	sharing := s.newSharing()
	s.outbound = outbound.New(outbound.Options{
		Routes: func() *outbound.Routes { return s.state.Load().routes },
		Store:  s.store, Sharing: sharing, Changed: func() { s.queue.Wake() }, Stopping: s.draining, Logger: s.log,
		Metrics: s.registry,
	})
	return sharing
}

func (s *Server) newQueue(c *config.Config) *queue.Queue {
	return queue.New(queue.Options{
		Store: s.store, Journal: s.journal, Dispatcher: s.outbound, Owner: s.store.Owner(),
		Schedule: schedule(c), Drain: attemptDrain,
		Report: s.outbound.Report, Trace: s.monitor.Result, Logger: s.log,
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
	for _, work := range s.background() {
		rest.Go(func() { guarded(background, s.log, work) })
	}
	select {
	case <-s.queue.Up(): // nobody submits to a queue that is not there
		s.serve()
	case <-ctx.Done():
		s.listeners.close()
	}
	<-ctx.Done()
	s.serving.Store(false)
	s.log.Info("shutting down")
	close(s.draining)
	s.stopReloads()
	s.handOver(ctx)
	s.listeners.shutdown()
	// Hand-offs whose clients are gone may end like those of the queue, then they are cut: an attempt cut
	// before its final dot has done nothing, one behind it says that its outcome is unknown.
	cut := time.AfterFunc(attemptDrain, s.stopDeliveries)
	stopQueue()
	<-queueDone
	s.submission.Wait()
	s.leaving.Wait()
	cut.Stop()
	s.store.Hurry()
	stopBackground()
	rest.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// handOver leaves the sockets of a server that ends in good order to the next.
func (s *Server) handOver(ctx context.Context) {
	if s.options.HandOver == nil || s.config().Store.URL.Server() || !errors.Is(context.Cause(ctx), context.Canceled) {
		return
	}
	s.options.HandOver(s.listeners.sockets())
}

// background is what works beside the queue and the listeners, until the shutdown is over.
func (s *Server) background() []func(context.Context) {
	poll := s.options.Poll
	past := &history{store: s.store, inForce: func() *config.Config { return s.state.Load().config }, log: s.log,
		period: poll}
	works := []func(context.Context){
		s.monitor.Run, s.limiter.Run, s.trace.Run, s.stats.Run, s.watchStore, s.watchNodes(), s.leading(past.run),
		s.leading(past.prepare),
		s.leading(func(ctx context.Context) { s.store.NewIndexer().Run(ctx) }), s.companion.Run,
		s.serveAdmin, s.mailPrograms.serveSecure, s.mailPrograms.servePlain, s.selfService.serve, s.listenStatus(),
		s.acme.Run,
		func(ctx context.Context) { s.accounts.watchSources(ctx, poll) },
		s.accounts.keys.run,
		func(ctx context.Context) {
			if err := s.certs.Run(ctx); err != nil {
				s.log.Error("certificates are not watched any more", "err", err)
			}
		},
	}
	if s.options.DNS != nil {
		w := &keyring.Watcher{Store: s.store, Lookup: s.options.DNS, Every: 60 * poll, Logger: s.log,
			Configured: s.configuredKeys}
		works = append(works, s.leading(w.Run))
	}
	if s.options.Load != nil {
		works = append(works, func(ctx context.Context) {
			files := func() []string { return s.state.Load().config.Files() }
			watchFiles(ctx, files, poll, func(ctx context.Context) { _ = s.Reload(ctx) }) // the log has the error
		})
	}
	return works
}

// bind opens every listener, the admin address and those of [autoconfig] and [self_service]: all or none.
func (s *Server) bind() (err error) {
	c := s.config()
	defer func() {
		if err != nil {
			s.listeners.close()
			s.mailPrograms.close()
			s.selfService.close()
		}
	}()
	if err := s.listeners.bind(c, s.store.Drained()); err != nil {
		return err
	}
	if err := s.mailPrograms.bind(c.Autoconfig.Listens()); err != nil {
		return err
	}
	if err := s.selfService.bind(c.SelfService.Listens()); err != nil {
		return err
	}
	if c.Admin.Address == "" {
		return nil
	}
	if s.admin, err = listen.TCP(context.Background(), c.Admin.Address); err != nil {
		return fmt.Errorf("admin.address: %w", err)
	}
	return nil
}

func (s *Server) serve() {
	s.listeners.serveAll()
	s.serving.Store(true)
	close(s.up)
	st := s.state.Load()
	s.log.Info("ready", "version", s.options.Version, "hostname", st.config.Hostname, "upstreams",
		len(st.routes.Upstreams), "signer", sign.Implementation())
	if s.options.Ready != nil {
		s.options.Ready()
	}
}

// Addresses returns where each listener accepts, by name.
func (s *Server) Addresses() map[string]string { return s.listeners.addresses() }

// close ends what New opened. It is safe on a server that New did not finish.
func (s *Server) close() error {
	s.stopDeliveries()
	var errs []error
	bounded, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	errs = append(errs, s.closeUpstreams(bounded))
	if s.limiter != nil {
		errs = append(errs, s.limiter.Close(bounded))
	}
	if s.accounts != nil {
		errs = append(errs, s.saveLockouts(bounded))
	}
	if s.trace != nil {
		errs = append(errs, s.trace.Close(bounded), s.stats.Close(bounded))
	}
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// ready implements /readyz. While all upstreams are down it is ready all the same: mail is accepted and kept, and
// whoever would send clients elsewhere for that would turn their mail away.
func (s *Server) ready(context.Context) error {
	if !s.serving.Load() {
		return errors.New("the listeners are not up")
	}
	if s.store.Drained() {
		return errDrained
	}
	if err := s.room.Full(); err != nil && s.room.Away() == nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (s *Server) serveAdmin(ctx context.Context) {
	if s.admin == nil {
		return
	}
	err := admin.Serve(ctx, s.admin, admin.Options{Ready: s.ready, Notes: s.monitor.Notes, Gatherer: s.registry,
		Names: s.pageNames, Logger: s.log, TLS: s.adminTLS(), Rest: s.selfService.beside(consoleOf(s)),
		Before: s.mailPrograms.server.Before})
	if err != nil {
		s.log.Error("admin stopped", "err", err)
	}
}
