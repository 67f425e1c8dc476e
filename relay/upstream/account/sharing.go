package account

import (
	"context"
	crypto "crypto/rand"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Times of a Sharing.
const (
	lookEvery   = 250 * time.Millisecond // what other nodes changed of accounts that are in use
	swapTimeout = 5 * time.Second
	swapRounds  = 4 // after which a row that other nodes are faster with waits for the next look
)

// Sharing joins the tables of one node to those of other nodes. One round trip settles all accounts of all tables; it
// is made when an account wants something that it has not leased, and four times a second for accounts in use. While no
// account is in use there is none.
//
// Failure semantics: while the database is away, accounts go on with what they have leased until 15 s before
// its end. Then nothing is reserved, what is being sent is cut off and connections are closed. Never are there more
// connections, or messages in a rate's window, than what all nodes together are allowed.
type Sharing struct {
	shared Shared
	node   string
	life   string // tells this one from those that the node had before
	log    *slog.Logger
	kicked chan struct{}

	turn  chan struct{} // holds one: who takes it may exchange; taken before mu and before the lock of a table
	clock clock         // guarded by turn
	down  bool          // guarded by turn: the last exchange failed

	mu      sync.Mutex // guards what follows
	members []member
	joined  int // how many ever have
}

// member is a table.
type member interface {
	// collect adds what is to be asked. Behind the clock's validity it only looks.
	collect(now time.Time, c *clock, drafts []*draft) []*draft
	// learn hears what there is of a row, in an exchange that ended now.
	learn(now time.Time, c *clock, d *draft, a Answer) (news bool, err error)
	// lost hears that nobody knows what became of a draft.
	lost(d *draft)
	// gone reports that the table is closed and has given everything back.
	gone() bool
	Changed()
}

// draft is what one account asks in an exchange.
type draft struct {
	m    member
	key  string
	row  Row
	next *ledger // what the row is to hold; nil: it only looks

	settled   bool   // the row is as it should be, with next, or as it is
	may       int    // slots that may be used then
	changes   uint64 // of the breaker that next has
	published bool   // a change of the breaker is in next
}

// NewSharing makes one for the node of this name. Run has to run before a table that shares can send.
//
// No two processes that live may have one name: what others of this name have leased is given back when this one meets
// it, without waiting for the end of the lease. They must have ended.
func NewSharing(shared Shared, node string, log *slog.Logger) *Sharing {
	s := &Sharing{shared: shared, node: node, life: crypto.Text()[:12], log: log, kicked: make(chan struct{}, 1),
		turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// join adds a table. It returns the table's name among the holders, which no other has ever had.
func (s *Sharing) join(m member) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append(s.members, m)
	s.joined++
	s.kick() // what is to be ready is leased at once
	return holderID(s.node, s.life, s.joined)
}

// kick asks for an exchange now.
func (s *Sharing) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

// Begin exchanges once, so that what tables want to have ready is leased where other nodes do not have it. What fails
// is logged, and Run tries again.
func (s *Sharing) Begin(ctx context.Context) { _ = s.exchange(ctx) }

// Run exchanges until ctx ends. It is to end after the tables have been closed, so that what they leased is given back.
func (s *Sharing) Run(ctx context.Context) {
	for s.exchange(ctx); ; s.exchange(ctx) {
		look := time.NewTimer(lookEvery - rand.N(lookEvery/8)) // nodes that began together do not stay in step
		select {
		case <-ctx.Done():
			look.Stop()
			return
		case <-look.C:
		case <-s.kicked:
			look.Stop()
		}
	}
}

// leave gives back what a closed table has, now, or within swapTimeout.
func (s *Sharing) leave(ctx context.Context, m member) {
	ctx, cancel := context.WithTimeout(ctx, swapTimeout)
	defer cancel()
	for range swapRounds {
		if s.exchange(ctx) != nil || m.gone() {
			break
		}
	}
}

// exchange settles what there is to settle.
func (s *Sharing) exchange(ctx context.Context) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	for range swapRounds {
		again, err := s.round(ctx)
		if err != nil || !again {
			return err
		}
	}
	return nil
}

// round is one round trip. It reports whether there is to be another: a row was not what a node took it for.
func (s *Sharing) round(ctx context.Context) (again bool, err error) {
	began := time.Now()
	drafts, rows := s.collect(began)
	if len(drafts) == 0 {
		return false, nil
	}
	bounded, cancel := context.WithTimeout(ctx, swapTimeout)
	defer cancel()
	sent := time.Now()
	answers, at, err := s.shared.Swap(bounded, rows)
	got := time.Now()
	if err == nil && len(answers) != len(rows) {
		err = fmt.Errorf("%d rows got %d answers", len(rows), len(answers))
	}
	if ctx.Err() == nil { // else we end
		s.tell(err)
	}
	if err != nil {
		for _, d := range drafts {
			d.m.lost(d)
		}
		return false, err
	}
	again = !s.clock.known(began) // then nothing was settled yet
	if stepped := s.clock.set(at, sent, got); stepped != 0 {
		s.log.Warn("the clock of the database was set, or another database took over; what other nodes have leased "+
			"is not touched for a while", "by", stepped, "for", leaseTime)
	}
	return s.learn(got, drafts, answers) || again, nil
}

// collect is what there is to settle, and drops tables that are gone.
func (s *Sharing) collect(now time.Time) (drafts []*draft, rows []Row) {
	s.mu.Lock()
	members := s.members
	s.mu.Unlock()
	for _, m := range members {
		if drafts = m.collect(now, &s.clock, drafts); m.gone() {
			s.drop(m)
		}
	}
	for _, d := range drafts {
		rows = append(rows, d.row)
	}
	return drafts, rows
}

// learn tells tables what there is. It reports whether a row was not what was settled.
func (s *Sharing) learn(now time.Time, drafts []*draft, answers []Answer) (again bool) {
	news := make(map[member]bool)
	for i, d := range drafts {
		changed, err := d.m.learn(now, &s.clock, d, answers[i])
		if err != nil {
			s.log.Error("an account is not used", "upstream", d.row.Upstream, "identity", d.row.Account, "err", err)
			continue
		}
		news[d.m] = news[d.m] || changed
		again = again || !answers[i].Swapped && (d.next != nil || answers[i].Version != d.row.Version)
	}
	for m, changed := range news {
		if changed {
			m.Changed()
		}
	}
	return again
}

func (s *Sharing) drop(m member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(slices.Clone(s.members), func(o member) bool { return o == m })
}

// tell logs when the database goes and when it is back.
func (s *Sharing) tell(err error) {
	if down := err != nil; down != s.down {
		s.down = down
		if down {
			s.log.Warn("what nodes share of upstream accounts cannot be reached; what is leased is used to its end, "+
				"then nothing is sent until the database is back", "err", err)
		} else {
			s.log.Info("what nodes share of upstream accounts can be reached again")
		}
	}
}
