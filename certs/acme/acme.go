// Package acme gets the listeners' certificates from a certificate authority (CA) by ACME (RFC 8555) and renews them.
// What it needs to keep (account, keys, certificates, the outcome of the last attempt) is in a Storage that all
// processes share: one account, and one order at a time for each name.
//
// Failure semantics: nobody waits for the CA. A certificate in use stays until there is a newer one. After a failure a
// name is tried again later and later, and not before the CA says so; a restart does not shorten that. An attempt that
// a shutdown interrupts counts as none. A CA is not trusted: its answers are bounded, and names, tokens and
// certificates in them are checked before they are used.
package acme

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Key is a kind of key.
type Key string

// The kinds of keys: ECDSA P-256, and RSA of 2048 bits for old devices.
const (
	ECDSA Key = "ecdsa"
	RSA   Key = "rsa"
)

// The challenges, by which the CA finds out that a name is ours.
const (
	HTTP01    = "http-01"        // RFC 8555 §8.3
	TLSALPN01 = "tls-alpn-01"    // RFC 8737
	DNS01     = "dns-01"         // RFC 8555 §8.4
	Persist01 = "dns-persist-01" // draft-ietf-acme-dns-persist-00
)

// Challenges are all that a person may choose from.
var Challenges = []string{HTTP01, TLSALPN01, DNS01, Persist01}

// Storage keeps what all processes share.
type Storage interface {
	certmagic.Storage
	certmagic.TryLocker
	// Announce tells the others that something has changed: they look again, by Keeper.Kick.
	Announce(context.Context) error
}

// DNS publishes records for dns-01.
type DNS interface {
	// Present publishes a TXT record at a name such as _acme-challenge.relay.example.com, and returns when it can be
	// seen, as far as that can be found out.
	Present(ctx context.Context, name, value string) error
	// CleanUp takes the record back.
	CleanUp(ctx context.Context, name, value string) error
	// Settings tells apart what it is set to, over restarts. It is hashed.
	Settings() string
}

// EAB is the external account that some CAs want (RFC 8555 §7.3.4).
type EAB struct{ ID, MAC string } // MAC: base64url

// Options say which certificates are wanted, and how to get them.
type Options struct {
	Storage   Storage
	Directory string // address of the CA's directory
	Email     string // "": none
	EAB       EAB    // zero: none
	Profile   string // of the certificate, as the CA names it; "": its default
	Names     []string
	Keys      []Key    // one certificate of each for each name
	Order     []string // challenges: the first that the CA offers is used
	HTTP      string   // address to listen on for http-01, while the CA asks
	ALPN      string   // for tls-alpn-01
	// ALPNShared says that another listener of ours is at ALPN: it answers by Keeper.Challenge instead.
	ALPNShared bool
	DNS        DNS // for dns-01; nil: none
	// Shared says that the CA may ask other nodes, which have the same Storage: they answer as well.
	Shared bool
	// TXT looks for records of dns-persist-01, to say what is missing; nil: nobody looks.
	TXT   func(ctx context.Context, name string) ([]string, error)
	Roots *x509.CertPool // that vouch for the CA's server; nil: the system's
	// Transport carries requests to the CA; nil: the network.
	Transport http.RoundTripper
	Logger    *slog.Logger
	// Issued, unless nil, is called when what there is has changed, never twice at once.
	Issued func([]Certificate)

	board  *board // of New, like mirror
	mirror *mirror
}

// Certificate is one that was obtained.
type Certificate struct {
	Name string
	Key  Key
	tls.Certificate
}

// look is the longest time between two looks at the certificates; renewal has days.
const look = 10 * time.Minute

// attemptTime bounds one attempt for a name and its keys.
const attemptTime = 20 * time.Minute

// Keeper gets and renews certificates.
type Keeper struct {
	kick     chan struct{}
	mirrored chan struct{}    // kick of the mirror
	unsaved  map[string]State // by name, which the storage did not take; of the goroutine of Run

	mu        sync.Mutex // guards what follows
	options   Options
	interrupt context.CancelFunc // ends the attempt under way, nil: there is none
	issued    []Certificate
}

// New makes a Keeper that does nothing until Load and Run.
func New(o Options) *Keeper {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.board = &board{answers: make(map[string]*tls.Certificate)}
	o.mirror = &mirror{node: rand.Text(), kick: make(chan struct{}, 1), up: make(map[string]func())}
	return &Keeper{options: o, kick: make(chan struct{}, 1), mirrored: o.mirror.kick, unsaved: make(map[string]State)}
}

// Use adopts changed options, but for Storage, Logger and Issued. What is under way with the old ones is given up.
func (k *Keeper) Use(o Options) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o.Storage, o.Logger, o.Issued, o.board = k.options.Storage, k.options.Logger, k.options.Issued, k.options.board
	o.mirror = k.options.mirror
	k.options = o
	if k.interrupt != nil {
		k.interrupt()
	}
	k.Kick()
}

// Kick has Run look at once.
func (k *Keeper) Kick() {
	for _, kick := range []chan struct{}{k.kick, k.mirrored} {
		select {
		case kick <- struct{}{}:
		default:
		}
	}
}

// Load presents the certificates that are stored, without asking the CA.
func (k *Keeper) Load(ctx context.Context) error {
	k.mu.Lock()
	o := k.options
	k.mu.Unlock()
	return k.publish(ctx, &o)
}

// Run gets and renews certificates until ctx ends, and answers the CA for other nodes.
func (k *Keeper) Run(ctx context.Context) {
	var others sync.WaitGroup
	others.Go(func() { k.answerOthers(ctx) })
	defer others.Wait()
	for {
		timer := time.NewTimer(k.pass(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-k.kick:
			timer.Stop()
		}
	}
}

// pass looks at every name once, and returns how long there is nothing to do.
func (k *Keeper) pass(ctx context.Context) (wait time.Duration) {
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	k.mu.Lock()
	o := k.options
	k.interrupt = cancel
	k.mu.Unlock()
	wait = look
	for _, name := range o.Names {
		wait = min(wait, k.tend(attempt, &o, name))
	}
	if err := k.publish(ctx, &o); err != nil && ctx.Err() == nil {
		o.Logger.Error("certificates by ACME cannot be read: those in use stay", "err", err)
	}
	return max(wait, time.Second)
}

// due is what there is to do for a name.
type due struct {
	State
	when  time.Time // when somebody asked for a certificate
	asked bool      // and has none yet
	wait  time.Duration
}

// due finds out what there is to do.
func (k *Keeper) due(ctx context.Context, o *Options, name string) (d due, err error) {
	now := time.Now()
	if d.State, err = loadState(ctx, o, name); err != nil {
		if ctx.Err() == nil {
			o.Logger.Error("the state of a certificate cannot be read", "name", name, "err", err)
		}
		return d, err
	}
	if kept := k.unsaved[name]; kept.Attempted.After(d.Attempted) {
		d.State = kept
	}
	d.when = asked(ctx, o.Storage, name)
	// Who asked has it once there was a success. A time that is far ahead was written while the clock was wrong: it
	// ends no wait.
	d.asked = !d.when.IsZero() && !d.when.Equal(d.Answered) && (d.when.After(d.Attempted) || d.Failures > 0)
	again := d.asked && d.when.After(d.Attempted) && d.when.After(d.Begun) && !d.when.After(now.Add(maxAhead))
	d.wait = d.State.wait(now, again, o.digest())
	return d, nil
}

// tend gets or renews the certificates of a name if it is time and no other node is at it. It returns when to look
// again.
func (k *Keeper) tend(ctx context.Context, o *Options, name string) (wait time.Duration) {
	if d, err := k.due(ctx, o, name); err != nil {
		return look
	} else if d.wait > 0 {
		return d.wait
	}
	wait = look // who is at it announces what it gets
	k.alone(ctx, o, func() {
		if d, err := k.due(ctx, o, name); err == nil { // another may have been at it a moment ago
			if wait = d.wait; wait <= 0 {
				wait = k.attempt(ctx, o, name, d.State, d.when, d.asked)
			}
		}
	})
	return wait
}

// attempt gets or renews the certificates of a name that has this state.
func (k *Keeper) attempt(ctx context.Context, o *Options, name string, st State, when time.Time,
	asked bool) time.Duration {
	now, err := time.Now(), error(nil)
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	begun := st
	begun.Begun = now
	at := &attempt{begin: func() error { return saveState(ctx, o, name, begun) }}
	for _, key := range o.Keys {
		if err = o.obtain(ctx, at, name, key, asked && !o.newer(ctx, name, key, when)); err != nil {
			if at.err != nil {
				err = at.err // without what certmagic writes around it
			}
			break // the CA counts failures by name: the other key would fail as well
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) { // a shutdown, or other settings
		if at.ordered {
			k.save(ctx, o, name, st)
		}
		return look
	}
	if asked && err == nil {
		st.Answered = when
	}
	return k.record(ctx, o, name, st, at, asked, err)
}

// record writes down how an attempt ended.
func (k *Keeper) record(ctx context.Context, o *Options, name string, st State, at *attempt, asked bool,
	err error) time.Duration {
	now := time.Now()
	died := !st.Begun.IsZero() // and perhaps not before the certificate was stored
	if err == nil && !at.ordered && !asked && !died && st.Failures == 0 && !st.ahead(now) {
		return look // there was nothing to do
	}
	next := State{Attempted: now, Settings: o.digest(), Answered: st.Answered}
	if at.ordered { // a CA that wants each new certificate renewed at once would have us order without end
		next.Next = now.Add(look)
	}
	if err != nil {
		next = st.failed(now, o.digest(), at, err)
	}
	k.save(ctx, o, name, next)
	if err != nil {
		o.Logger.Warn("no certificate from the CA", "name", name, "reason", next.Error, "failures", next.Failures,
			"next_try", next.Next.Format(time.RFC3339))
	}
	if err == nil && (at.ordered || died) {
		o.Logger.Info("certificate obtained from the CA", "name", name)
		if err := o.Storage.Announce(context.WithoutCancel(ctx)); err != nil {
			o.Logger.Warn("other processes do not hear of the new certificate at once", "err", err)
		}
	}
	return next.wait(now, false, o.digest())
}

// save writes a state down, also during a shutdown, or keeps it in memory.
func (k *Keeper) save(ctx context.Context, o *Options, name string, st State) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := saveState(ctx, o, name, st); err != nil {
		o.Logger.Error("the state of a certificate cannot be written", "name", name, "err", err)
		k.unsaved[name] = st
	}
}

// newer reports whether a certificate came after somebody asked, in an attempt that failed for another key.
func (o *Options) newer(ctx context.Context, name string, key Key, when time.Time) bool {
	info, err := o.Storage.Stat(ctx, certmagic.StorageKeys.SiteCert(issuerKey(o.Directory, key), name))
	return err == nil && info.Modified.After(when)
}

// obtain gets or renews one certificate if it is time, or if somebody asked.
func (o *Options) obtain(ctx context.Context, at *attempt, name string, key Key, asked bool) error {
	cfg, stop := o.manager(key, at)
	defer stop()
	_, err := o.pair(ctx, name, key)
	if err != nil && !errors.Is(err, errNoPair) && !errors.Is(err, errBadPair) {
		return err
	}
	if asked || errors.Is(err, errBadPair) {
		return cfg.RenewCertSync(ctx, name, true)
	}
	return cfg.ManageSync(ctx, []string{name})
}

// manager is certmagic for certificates with one kind of key. It does one attempt, under a lock that all processes
// share; when to try again is ours to decide.
func (o *Options) manager(key Key, at *attempt) (cfg *certmagic.Config, stop func()) {
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil },
		// It would renew by itself after these times; a manager lives for one attempt. By the first it is also early
		// for a time that the CA chose.
		RenewCheckInterval: 2 * attemptTime, OCSPCheckInterval: 24 * time.Hour,
		Logger: zapTo(o.Logger),
	})
	source := certmagic.StandardKeyGenerator{KeyType: certmagic.P256}
	if key == RSA {
		source.KeyType = certmagic.RSA2048
	}
	cfg = certmagic.New(cache, certmagic.Config{
		Storage: o.Storage, Logger: zapTo(o.Logger), KeySource: source,
		Issuers: []certmagic.Issuer{&issuer{o, key, at}},
		OCSP:    certmagic.OCSPConfig{DisableStapling: true}, // mail programs do not ask, and public CAs ended it
	})
	return cfg, cache.Stop
}

// What pair finds.
var (
	errNoPair  = errors.New("there is no certificate yet")
	errBadPair = errors.New("certificate and key do not belong together")
)

// pair reads a certificate and its key. A process that was stopped between writing one and the other leaves errBadPair.
func (o *Options) pair(ctx context.Context, name string, key Key) (Certificate, error) {
	from := issuerKey(o.Directory, key)
	c := Certificate{Name: name, Key: key}
	chain, err := o.Storage.Load(ctx, certmagic.StorageKeys.SiteCert(from, name))
	if err == nil {
		var private []byte
		if private, err = o.Storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(from, name)); err == nil {
			if c.Certificate, err = tls.X509KeyPair(chain, private); err != nil {
				return c, fmt.Errorf("%w: %w", errBadPair, err)
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, errNoPair
	}
	return c, err
}

// publish tells what certificates there are, if that has changed.
func (k *Keeper) publish(ctx context.Context, o *Options) error {
	var all []Certificate
	var errs []error
	k.mu.Lock()
	before := k.issued
	k.mu.Unlock()
	for _, name := range o.Names {
		for _, key := range o.Keys {
			c, err := o.pair(ctx, name, key)
			if errors.Is(err, errNoPair) {
				continue
			}
			if i := slices.IndexFunc(before, c.sameAs); err != nil && i >= 0 {
				c = before[i] // what is in memory is better than nothing
			} else if err != nil {
				errs = append(errs, fmt.Errorf("%s (%s): %w", name, key, err))
				continue
			}
			all = append(all, c)
		}
	}
	if !slices.EqualFunc(before, all, func(a, b Certificate) bool {
		return a.sameAs(b) && a.Leaf.Equal(b.Leaf)
	}) {
		k.mu.Lock()
		k.issued = all
		k.mu.Unlock()
		if o.Issued != nil {
			o.Issued(all)
		}
	}
	return errors.Join(errs...)
}

func (c Certificate) sameAs(o Certificate) bool { return c.Name == o.Name && c.Key == o.Key }

// digest tells settings apart: an attempt that failed with others says nothing of these.
func (o *Options) digest() string {
	dns := ""
	if o.DNS != nil {
		dns = o.DNS.Settings()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []any{o.Directory, o.Email, o.EAB, o.Profile, o.Keys, o.Order, o.HTTP,
		o.ALPN, dns}))
	return hex.EncodeToString(sum[:8])
}
