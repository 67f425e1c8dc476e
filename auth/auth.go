package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"postern/mail"
)

// Defaults of Options.
const (
	defaultCacheSize = 16384
	defaultCacheTTL  = 10 * time.Minute
	defaultHashWait  = 5 * time.Second
)

const (
	// wrongTTL is how long a refused credential is refused again without being verified: long enough
	// for a printer with an old password, short enough for a source that cannot tell us of a change.
	wrongTTL = time.Minute
	// verifyTimeout bounds the sources together. A client waits no longer for a reply to AUTH.
	verifyTimeout = 20 * time.Second
	// queuePerSlot bounds how many may wait for a slot to hash in.
	queuePerSlot = 64
	// remoteParallel is how many credentials are verified at once where sources are remote: they wait more than they
	// work.
	remoteParallel = 32
	// refuseStep is the grid on which refusals leave where sources differ in what a refusal costs: see package comment.
	refuseStep = 500 * time.Millisecond
)

// Options configure an Authenticator. Only Sources is needed.
type Options struct {
	Sources      []Source // asked in order; the first that knows the login decides
	Lockout      Lockout
	CacheSize    int           // verified credentials remembered, and as many refused ones
	CacheTTL     time.Duration // how long a verified credential is not asked about again
	HashParallel int           // credentials verified at once; 0: one per processor
	HashWait     time.Duration // longest wait for that, then 454
	OnLock       func(Lock)    // called, not under locks, when somebody is locked out
	// OnSource is called, not under locks, when a remote source goes down, and with nil when it is up again.
	OnSource func(name string, err error)
	// OnPassword, unless nil, is called, not under locks, when a source has found a password right that was not
	// remembered. It must return quickly.
	OnPassword func(id Identity, password string)
	// ScramSecret is the install secret ScramSaltName.
	ScramSecret []byte
	// Apps has the app passwords, which are asked for before any source, hashed with Pepper; nil: there are none.
	Apps   AppStore
	Pepper []byte
	// OnApp, unless nil, is called, not under locks, when somebody logs in with an app password. It must return
	// quickly.
	OnApp func(id string, client netip.Addr)
	// Locks, unless nil, has the locks of logins that other sources than the store vouch for.
	Locks LockKeeper
	// StoreAway, unless nil, returns why the store that has accounts, Apps and Locks is away. Who was let in lately
	// gets in all the same then. It must return quickly.
	StoreAway func() error
}

// Authenticator verifies credentials. It is safe for concurrent use and starts no goroutine.
type Authenticator struct {
	roster   atomic.Pointer[roster]
	cache    *cache
	lockout  *lockout
	slots    *slots // to hash in
	turns    *slots // to ask remote sources in, with a slot for each hash beside it
	flight   singleflight.Group
	argon    argon
	onLock   func(Lock)
	onSource func(string, error)
	onRight  func(Identity, string)
	stats    counters

	scramSecret []byte
	apps        AppStore
	pepper      []byte
	onApp       func(string, netip.Addr)
	locks       LockKeeper
	storeAway   func() error
}

// New returns an Authenticator.
func New(o Options) *Authenticator {
	wait := cmp.Or(o.HashWait, defaultHashWait)
	a := &Authenticator{
		cache:    newCache(cmp.Or(o.CacheSize, defaultCacheSize), cmp.Or(o.CacheTTL, defaultCacheTTL), wrongTTL),
		lockout:  newLockout(o.Lockout),
		slots:    newSlots(cmp.Or(o.HashParallel, runtime.NumCPU()), wait),
		turns:    newSlots(remoteParallel, wait),
		argon:    realArgon,
		onLock:   o.OnLock,
		onSource: o.OnSource,
		onRight:  o.OnPassword,

		scramSecret: o.ScramSecret,
		apps:        o.Apps,
		pepper:      o.Pepper,
		onApp:       o.OnApp,
		locks:       o.Locks,
		storeAway:   o.StoreAway,
	}
	a.roster.Store(newRoster(o.Sources))
	return a
}

// The reasons for a refusal that are not a Source's. They are for the log; the client hears one text.
var (
	ErrMalformed = errors.New("no such credential can exist")
	ErrLockedOut = errors.New("locked out")
	ErrNetwork   = errors.New("client is outside the networks of this login")
	ErrSource    = errors.New("passwords of this source do not count here")
	ErrBusy      = errors.New("too many credentials are being verified")
)

// RFC 4954 §6.
var (
	replyRefused = mail.R(535, "5.7.8", "user name or password not accepted; check both in the account settings")
	replyBusy    = mail.R(454, "4.7.0", "too many people log in at once; try again in a minute")
	replyDown    = mail.R(454, "4.7.0", "logins cannot be checked now; try again later")
)

// attempt is one credential offered from one place.
type attempt struct {
	login    string // normalised
	password string
	client   netip.Addr
	place    netip.Prefix
	cred     credential
	roster   *roster
	remark   string   // for the log, if it is refused
	only     []string // sources that count; none: all
	accounts uint64   // generation of the cache when it began
}

// shared names what connections of one place may share that offer a credential together: one that begins when a change
// of accounts is known has no part in what began before.
func (t *attempt) shared(cred credential) string {
	return fmt.Sprint(string(cred[:]), t.accounts, t.place)
}

// Authenticate returns who has this login and password. Its errors are *mail.Error: 535 5.7.8 for
// whatever is wrong with the credential, 454 4.7.0 for whatever is wrong with us.
func (a *Authenticator) Authenticate(ctx context.Context, login, password string, client netip.Addr) (Identity, error) {
	return a.AuthenticateBy(ctx, login, password, client)
}

// AuthenticateBy is Authenticate where the sources named count alone; none: all. A right password of another is refused
// like a wrong one, and nobody can tell it from one by time, words or lockout.
func (a *Authenticator) AuthenticateBy(ctx context.Context, login, password string, client netip.Addr,
	sources ...string) (Identity, error) {
	began := time.Now()
	id, err := a.authenticate(ctx, began, login, password, client, sources)
	if reply, refused := mail.ReplyFor(err); refused && reply.Permanent() && a.roster.Load().uneven {
		wait := time.NewTimer(refuseStep - time.Since(began)%refuseStep)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	return id, err
}

func (a *Authenticator) authenticate(ctx context.Context, now time.Time, login, password string, client netip.Addr,
	sources []string) (Identity, error) {
	login, ok := NormalizeLogin(login)
	password = Prepare(password)
	if !ok || password == "" || len(password) > MaxLength || !printable(password) {
		return a.answer(Identity{}, ErrMalformed)
	}
	t := attempt{
		login: login, password: password, client: client, place: prefixOf(client),
		cred: a.cache.credential(login, password), only: sources,
	}
	id, err := a.decideNow(ctx, now, t)
	if err == nil {
		a.lockout.succeeded(now, t.login, t.place)
		if id.Login != t.login {
			a.lockout.succeeded(now, id.Login, t.place)
		}
		if id.App != "" && a.onApp != nil {
			a.onApp(id.App, t.client)
		}
	}
	return a.answer(id, err)
}

// answer is the one way out.
func (a *Authenticator) answer(id Identity, err error) (Identity, error) {
	var down *downError
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, ErrBusy):
		a.stats.busy.Add(1)
		return Identity{}, mail.Refuse(replyBusy, err)
	case errors.As(err, &down):
		a.stats.down.Add(1)
		return Identity{}, mail.Refuse(replyDown, err)
	}
	a.stats.refused.Add(1)
	return Identity{}, mail.Refuse(replyRefused, err)
}

// decide takes the cheapest way to an answer. Whatever is refused has cost the same work, so that the time tells nobody
// whether a password is right: see refuseRight, and Source.Verify.
func (a *Authenticator) decide(ctx context.Context, now time.Time, t attempt) (Identity, error) {
	known := a.cache.look(now, t.cred)
	t.accounts, t.roster = known.generation, a.roster.Load() // in this order: what older sources say is not remembered
	switch {
	case known.right && t.allows(known.identity):
		a.stats.hits.Add(1)
		return known.identity, nil
	case known.right:
		return a.refuseRight(ctx, now, t, outside(t, known.identity))
	case known.wrong != nil:
		a.stats.wrongHits.Add(1)
		a.charge(now, t) // it may be new from this place
		return Identity{}, known.wrong
	}
	app, ok, err := a.findApp(ctx, now, &t)
	if err != nil {
		return Identity{}, err
	}
	if ok {
		return a.verifyApp(ctx, now, t, app, known)
	}
	id, ok, err := a.verifyFast(ctx, t)
	if err != nil {
		return Identity{}, err
	}
	if ok {
		a.cache.remember(now, t.cred, known.generation, t.login, id, nil)
		if !t.allows(id) {
			return a.refuseRight(ctx, now, t, outside(t, id))
		}
		a.tellRight(id, t)
		return id, nil
	}
	if err := a.lockedOut(ctx, now, t, known); err != nil {
		return Identity{}, err
	}
	id, err = a.verifyOnce(ctx, now, t, t.cred, a.verify)
	if err != nil && t.remark != "" {
		err = fmt.Errorf("%w; %s", err, t.remark)
	}
	if err == nil && !t.allows(id) {
		err = outside(t, id)
		a.cache.remember(now, t.cred.outside(), known.generation, t.login, Identity{}, err)
		a.charge(now, t) // like a wrong one, or the lockout would tell a right one from it
	}
	return id, err
}

// refuseRight refuses a right password that must not be used, outside the networks of its login perhaps, when that is
// known without work. It goes the way of a wrong one: remembered for a minute, refused unseen by a lock, else as much
// work, and counted.
func (a *Authenticator) refuseRight(ctx context.Context, now time.Time, t attempt, why error) (Identity, error) {
	cred := t.cred.outside()
	if a.cache.look(now, cred).wrong != nil {
		a.stats.wrongHits.Add(1)
		a.charge(now, t)
		return Identity{}, why
	}
	if err := a.lockedOut(ctx, now, t, answer{}); err != nil {
		return Identity{}, err
	}
	_, err := a.verifyOnce(ctx, now, t, cred, func(ctx context.Context, t attempt) (Identity, error) {
		if busy := a.dummies(ctx, t, nil); busy != nil {
			return Identity{}, busy
		}
		return Identity{}, why
	})
	return Identity{}, err
}

// allows reports whether an identity may be used from the client, and is of a source that counts.
func (t *attempt) allows(id Identity) bool {
	return id.Allows(t.client) && (len(t.only) == 0 || slices.Contains(t.only, id.Source))
}

// outside says, for the log, why a right password is refused.
func outside(t attempt, id Identity) error {
	if id.Allows(t.client) {
		return fmt.Errorf("%w: the password is right, but of %s", ErrSource, id.Source)
	}
	return fmt.Errorf("%w: the password is right, but %s is not in %v", ErrNetwork, t.client, id.Networks)
}

// lockedOut returns an error when nothing that this place offers for this login is looked at now.
func (a *Authenticator) lockedOut(ctx context.Context, now time.Time, t attempt, known answer) error {
	until := a.lockout.locked(now, t.login, t.place)
	if until.IsZero() {
		return nil
	}
	if known.once && a.mayEnter(ctx, t, known.identity) {
		return nil // it was right before: verify it, whoever else guesses
	}
	return fmt.Errorf("%w until %s", ErrLockedOut, until.UTC().Format(time.RFC3339))
}

// mayEnter reports whether a right password would be let in, as far as can be told without hashing. For one that would
// not be, nothing is hashed: the time would show that the password was right.
func (a *Authenticator) mayEnter(ctx context.Context, t attempt, was Identity) bool {
	if a.unlocked(ctx, was.Source, t.login, was.Login) != nil {
		return false
	}
	now, err := a.lookup(ctx, t.login)
	if err != nil { // the source cannot be asked, or does not know
		return t.allows(was) && !errors.Is(err, ErrLocked)
	}
	return t.allows(now)
}

// verifyOnce verifies a credential once however many connections of one place offer it together. The
// verification runs in the goroutine of the first and ends with it, but not because it gave up. Its outcome is
// remembered as that of cred.
func (a *Authenticator) verifyOnce(ctx context.Context, now time.Time, t attempt, cred credential, verify verifyFunc) (
	Identity, error) {
	v, err, _ := a.flight.Do(t.shared(cred), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
		defer cancel()
		return a.verifyInSlot(ctx, now, t, cred, verify)
	})
	return v.(Identity), err
}

type verifyFunc func(context.Context, attempt) (Identity, error)

// verifyInSlot waits for a slot and looks again at what may have changed meanwhile: of many guesses
// that came together, those that reach their turn after the lock are not verified.
func (a *Authenticator) verifyInSlot(ctx context.Context, now time.Time, t attempt, cred credential,
	verify verifyFunc) (Identity, error) {
	turns := a.slots
	if t.roster.remote {
		turns = a.turns
	}
	if err := turns.acquire(ctx); err != nil {
		return Identity{}, err
	}
	defer turns.release()
	known := a.cache.look(now, cred)
	if known.right {
		return known.identity, nil
	}
	if known.wrong != nil {
		a.charge(now, t)
		return Identity{}, known.wrong
	}
	if err := a.lockedOut(ctx, now, t, known); err != nil {
		return Identity{}, err
	}
	a.stats.verified.Add(1)
	id, err := verify(ctx, t)
	if d, ok := errors.AsType[*downError](err); ok {
		if id, ok := a.cache.stale(now, cred, d.source, "", d.stale); ok &&
			a.unlocked(ctx, id.Source, t.login, id.Login) == nil {
			a.stats.stale.Add(1)
			return id, nil
		}
		return Identity{}, err
	}
	if errors.Is(err, ErrBusy) {
		return Identity{}, err
	}
	if err == nil {
		if err := a.lockedByOwnName(ctx, now, t, id); err != nil {
			a.charge(now, t) // like a wrong one
			return Identity{}, err
		}
	}
	a.cache.remember(now, cred, t.accounts, t.login, id, err)
	if err != nil {
		a.charge(now, t)
		a.chargeOwnName(now, t, err)
	} else if id.Allows(t.client) {
		a.tellRight(id, t)
	}
	return id, err
}

func (a *Authenticator) tellRight(id Identity, t attempt) {
	if a.onRight != nil {
		a.onRight(id, t.password)
	}
}

// charge counts a refused credential and tells OnLock who is locked out by it.
func (a *Authenticator) charge(now time.Time, t attempt) {
	for _, lock := range a.lockout.failed(now, t.login, t.place, t.cred.short()) {
		a.tell(lock)
	}
}

func (a *Authenticator) tell(lock Lock) {
	a.stats.lockouts.Add(1)
	if a.onLock != nil {
		a.onLock(lock)
	}
}

// Forget makes every remembered credential be verified again, of the logins named or of all. With
// names it also ends their lockouts. To be called when users change.
func (a *Authenticator) Forget(logins ...string) {
	names := make([]string, 0, len(logins))
	for _, l := range logins {
		if n, ok := NormalizeLogin(l); ok {
			names = append(names, n)
		}
	}
	if len(logins) > 0 && len(names) == 0 {
		return
	}
	a.cache.forget(names)
	for _, n := range names {
		a.lockout.forget(n)
	}
}

// SetLockout changes the numbers of the lockout. Who is locked out stays so.
func (a *Authenticator) SetLockout(l Lockout) { a.lockout.set(l) }

// Lookup returns who has a login without a password, for listeners that let clients in by their
// network. Its errors are *mail.Error; an unknown login there is our configuration's fault.
func (a *Authenticator) Lookup(ctx context.Context, login string) (Identity, error) {
	name, _ := NormalizeLogin(login)
	return a.recalled(ctx, name, "", func() (Identity, error) {
		id, err := a.lookup(ctx, name)
		if err != nil {
			return Identity{}, lookupRefusal(login, err)
		}
		return id, nil
	})
}

// lookupRefusal turns an error of lookup into one with a reply.
func lookupRefusal(login string, err error) error {
	switch {
	case errors.Is(err, ErrLocked):
		return mail.Refuse(mail.R(550, "5.7.1",
			"the account for your network is locked; ask the administrator to unlock it"),
			fmt.Errorf("login %q: %w", login, err))
	case errors.Is(err, ErrUnknownLogin):
		return mail.Refuse(mail.R(451, "4.3.5",
			"the account for your network does not exist; ask the administrator to add it"),
			fmt.Errorf("login %q: %w", login, err))
	}
	return mail.Refuse(mail.R(451, "4.3.0", "the login cannot be looked up now; try again later"), err)
}

// Stats are totals since the start.
type Stats struct {
	Hits      uint64 // verified credentials found in the cache
	WrongHits uint64 // refused credentials found in the cache
	Verified  uint64 // credentials that sources were asked about, and hashed for
	Refused   uint64 // 535
	Busy      uint64 // 454 because too many waited
	Down      uint64 // 454 because a source did not answer
	Stale     uint64 // let in by what was verified before, since a source did not answer
	Lockouts  uint64
	Cached    int // verified credentials held now
	Waiting   int // for a slot, now
}

type counters struct {
	hits, wrongHits, verified, refused, busy, down, stale, lockouts atomic.Uint64
}

// Stats returns the totals.
func (a *Authenticator) Stats() Stats {
	s := &a.stats
	return Stats{
		Hits: s.hits.Load(), WrongHits: s.wrongHits.Load(), Verified: s.verified.Load(), Refused: s.refused.Load(),
		Busy: s.busy.Load(), Down: s.down.Load(), Stale: s.stale.Load(), Lockouts: s.lockouts.Load(),
		Cached: a.cache.size(), Waiting: int(a.slots.waiting.Load()),
	}
}
