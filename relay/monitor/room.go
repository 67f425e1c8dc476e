package monitor

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/queue"
	relaystore "postern/relay/store"
)

// Room knows whether there is room for new mail.
type Room struct {
	writable func() error // of the store
	handsOff bool         // mail is handed off while the database is away
	log      *slog.Logger

	full  atomic.Pointer[error] // why no new mail is taken, nil while it is
	short atomic.Pointer[shortage]
	mu    sync.Mutex // guards changes of full, so that each is logged once
}

// shortage is a message that was refused for lack of room, though smaller ones may fit.
type shortage struct {
	at  time.Time
	err error
}

// shortageLife is how long after a shortage room still counts as short.
const shortageLife = time.Minute

// NewRoom makes a Room. writable says why the store takes no new mail; with handsOff some is taken while the database
// is away.
func NewRoom(writable func() error, handsOff bool, log *slog.Logger) *Room {
	return &Room{writable: writable, handsOff: handsOff, log: log}
}

// replyAway refuses new mail while the database cannot be reached.
var replyAway = mail.R(451, "4.3.0", "the database of this server is away, nothing was taken; try again later")

// Check asks the store whether it accepts mail. Each change is logged once.
func (r *Room) Check() {
	r.mu.Lock()
	defer r.mu.Unlock()
	err, code := r.writable(), 452
	if errors.Is(err, relaystore.ErrAway) {
		err, code = mail.Refuse(replyAway, err), replyAway.Code
	}
	before := r.full.Load()
	switch {
	case err == nil && before != nil:
		r.full.Store(nil)
		r.log.Info("new mail is taken again")
	case err != nil && before == nil && r.handsOff && databaseAway(err):
		r.full.Store(&err)
		r.log.Error("new mail is only handed off: what no upstream takes at once is refused", "code", code, "err", err)
	case err != nil && before == nil:
		r.full.Store(&err)
		r.log.Error("no new mail is taken: clients are refused", "code", code, "err", err)
	case err != nil:
		r.full.Store(&err)
	}
}

// Full returns why there is no room for new mail, or nil. Check finds the trouble; its end is looked for on every call,
// but for that of a database that is away: no client waits until it does not answer.
func (r *Room) Full() error {
	err := r.full.Load()
	if err == nil {
		return nil
	}
	if errors.Is(*err, relaystore.ErrAway) {
		return *err
	}
	r.Check()
	if err := r.full.Load(); err != nil {
		return *err
	}
	return nil
}

// Away returns why the database is away, where mail is handed off then; nil: it is not, or no mail is.
func (r *Room) Away() error {
	if err := r.full.Load(); r.handsOff && err != nil && databaseAway(*err) {
		return *err
	}
	return nil
}

// databaseAway reports whether nothing but the way to the database is the trouble. A node that another one has taken
// over from sends nothing more.
func databaseAway(err error) bool {
	return errors.Is(err, relaystore.ErrAway) && !errors.Is(err, relaystore.ErrNodeName)
}

// Refused notes a message that was refused for lack of room. Just below the queue's bound, small messages still fit, so
// the remaining room alone does not tell.
func (r *Room) Refused(reply mail.Reply, err error) {
	if err != nil && reply.Code == 452 && errors.Is(err, queue.ErrFull) {
		r.short.Store(&shortage{time.Now(), err})
	}
}

// Short returns why mail is refused for lack of room, all of it now or some of it in the last minute, or nil.
func (r *Room) Short(now time.Time) error {
	if err := r.Full(); err != nil {
		return err
	}
	if s := r.short.Load(); s != nil && now.Sub(s.at) < shortageLife {
		return s.err
	}
	return nil
}
