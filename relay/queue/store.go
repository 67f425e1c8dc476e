package queue

import (
	"context"
	"errors"
	"time"

	"postern/mail"
)

// Status is where one recipient of a queued message stands.
type Status string

// The states of a recipient. A message leaves the queue when none is pending.
const (
	Pending   Status = "pending"
	Delivered Status = "delivered"
	Failed    Status = "failed"
	Unclear   Status = "unclear" // given up, and it is not known whether an upstream has it
)

// Recipient is a recipient of a queued message and what became of it.
type Recipient struct {
	mail.Recipient
	Status   Status     `json:"status"`
	Reply    mail.Reply `json:"reply,omitzero"`  // the last one
	Host     string     `json:"host,omitempty"`  // whose words Reply is; "": ours
	Stage    mail.Stage `json:"stage,omitempty"` // at which Reply was given; "": at none
	Upstream string     `json:"upstream,omitempty"`
	Relayed  bool       `json:"relayed,omitempty"` // DSN parameters were passed on
	Doubts   int        `json:"doubts,omitempty"`  // attempts that an upstream may have taken, see MaxDoubts
}

// Message is one row of the queue. Its content is kept beside it and never changes.
type Message struct {
	ID         string
	Login      string   // "" for our own reports
	Groups     []string // of the login when it submitted, for routes
	Listener   string
	Session    string
	Envelope   mail.Envelope // Recipients is empty here: see Recipients
	Recipients []Recipient
	Author     mail.Address // header author
	MessageID  string       // header field, printable
	Size       int64        // octets of the content
	EightBit   bool         // the content has octets above 0x7f
	Received   time.Time    // when it was accepted
	Expires    time.Time    // after this a deferral is a failure

	Attempts    int       // recorded before dialling
	NextAttempt time.Time // due when it has come
	// WaitingFor names the paused upstreams that it was postponed for. It becomes due with them, or at NextAttempt; ""
	// if its own retry time counts.
	WaitingFor string
	LastReply  mail.Reply
	Warned     bool // a delay report was made, or the time for it has passed
	Held       bool // waits for a release
	HoldReason string
	Bounce     bool // a person asked to give it up: fail what is pending at the next review

	// LeaseOwner and LeaseUntil are set while an attempt runs. A lease that ran out counts as none.
	LeaseOwner string
	LeaseUntil time.Time

	// AllOrNone is of a message that cannot be stored: it goes to all recipients in one transaction, or to nobody.
	AllOrNone bool
}

// Version tells one state of a message from those before: each attempt raises Attempts, and so does an outcome that
// came late. What a process decides about a message holds for the version that it has seen.
type Version struct {
	ID       string
	Attempts int
	Owner    string // of the lease that it had, running or not: the outcome of that attempt ends it
}

// Version is that of m as it was read.
func (m *Message) Version() Version { return Version{m.ID, m.Attempts, m.LeaseOwner} }

// NewMessage is a message to be added with its content.
type NewMessage struct {
	Message *Message
	Content mail.Content
}

// Outcome is what an attempt, or a person, made of a message. It is committed as one.
type Outcome struct {
	Recipients  []Recipient // new states, all of them
	Remove      bool        // no recipient is pending: message and content go
	NextAttempt time.Time
	WaitingFor  string
	Warned      bool
	LastReply   mail.Reply
	Reports     []NewMessage // DSNs, added in the same transaction
}

// Filter selects messages for a listing or an operator's action. Zero fields select everything.
type Filter struct {
	IDs         []string
	Login, From string
	To          string // exact, or "*@domain"
	Held        bool   // only held ones
	After       string // ID, for paging
	Limit       int    // 0: all for actions, 1000 for listings
	// Changed, unless nil, is told of the messages that an action changed, behind each commit.
	Changed func(ids []string)
}

// Stats is the state of the queue at a glance.
type Stats struct {
	Messages int64
	Held     int64
	Leased   int64
	Bytes    int64
	Oldest   time.Time // of Received; zero when empty
}

// The errors that a Store tells apart. Any other error is the store's own trouble: temporary.
var (
	// ErrNotFound: no such message, it is not the version that was seen any more, or the lease is not ours.
	ErrNotFound = errors.New("no such message")
	// ErrFull: no space left on the device or the store's own limit is reached.
	ErrFull = errors.New("store is full")
)

// Store is the durable truth of the queue. Every method that changes something returns only when the
// change is committed and synced, or with an error and nothing changed. All methods are safe for
// concurrent use, also by other processes.
type Store interface {
	// Add commits messages and their contents, all or none. A Message with LeaseOwner set is added
	// as already leased, with its first attempt recorded.
	Add(ctx context.Context, news ...NewMessage) error
	// Content returns the octets of a message. They are read when opened, in chunks.
	Content(ctx context.Context, id string) (mail.Content, error)
	// Get returns one message, ErrNotFound if it is not in the queue.
	Get(ctx context.Context, id string) (*Message, error)
	// Due returns at most limit messages whose time has come, neither held nor leased, in a fair mix: logins take
	// turns, beginning behind the login named by after; at most perLogin of each. It also tells when the next one that
	// is not yet due will be (zero: none).
	Due(ctx context.Context, now time.Time, after string, perLogin, limit int) (
		due []*Message, next time.Time, err error)
	// Lease records an attempt before it is made: attempts is raised by one and the lease set. It returns ErrNotFound
	// if the message is gone, held, leased, or another version than v. A lease of v that is ours already is no error:
	// the answer to the first call may have been lost.
	Lease(ctx context.Context, v Version, owner string, now, until time.Time) error
	// Extend moves the end of a lease of ours, v being the version that Lease made.
	Extend(ctx context.Context, v Version, owner string, until time.Time) error
	// Finish commits the outcome of a leased attempt, v being the version that Lease made, and ends the lease.
	Finish(ctx context.Context, v Version, owner string, o Outcome) error
	// Record commits an outcome that came too late for Finish: another attempt was begun, or may have been. It makes v,
	// as it was just read, a new version, so that whoever attempts it learns of that, and ends its lease where that is
	// owner's. Where it is not, all but the recipients and the reply stays as it is.
	Record(ctx context.Context, v Version, owner string, o Outcome) error
	// Postpone moves the next attempt of those messages of these versions that are neither leased nor held nor given up
	// by a person, without counting an attempt. With waitingFor they also become due by Wake.
	Postpone(ctx context.Context, vs []Version, until time.Time, waitingFor string) error
	// Wake makes at most limit messages due that wait for what is named and are not held: the oldest, logins taking
	// turns. It returns how many; fewer than limit means that no other waits.
	Wake(ctx context.Context, waitingFor string, now time.Time, limit int) (int, error)
	// WaitedFor lists at most limit names that messages wait for and that sort behind after, in order.
	WaitedFor(ctx context.Context, after string, limit int) ([]string, error)
	// ReleaseLeases ends all leases of an owner: at start, those of its former life.
	ReleaseLeases(ctx context.Context, owner string) (int64, error)
}
