// Package storm stops bounce storms: it says when not to believe a permanent refusal.
//
// Reply rules say whose fault a refusal is, but no list of rules is ever complete. If a provider blocks an account in
// words that no rule knows, all mail of an office would bounce. Such a block has an unmistakable pattern: one text for
// everybody, and nothing gets through. A Watch looks for it in the attempts at one upstream; docs/decisions/0011 has
// the thresholds and the reasons for them.
//
// It is pure, since the caller passes the time, and bounded: attempts, texts, logins and identities are remembered up
// to a limit, and a refusal without history is believed. It is safe for concurrent use.
package storm

import (
	"slices"
	"sync"
	"time"

	"postern/mail"
)

// Thresholds. docs/decisions/0011-bounce-storms.md says why.
const (
	enough        = 5              // refusals with one text: the fifth is not believed
	mostDelivered = 4              // at most one delivery for so many of them
	enoughNamed   = 10             // of a text that names the recipient, from different logins or to different domains
	mostNamed     = 10             // at most one delivery for so many of those
	namedLogins   = 3              // that must have met it
	namedDomains  = 5              //
	contentLogins = 3              // that must have met a text that names the message
	recent        = 24 * time.Hour // what is older proves nothing
	// deliveries between refusals, within recent, that show a text to be about single messages
	mixedTimes = 3
	mixedLife  = 7 * 24 * time.Hour
	proof      = 3                  // deliveries after the end of a storm before its text is believed again
	knownFor   = 7 * 24 * time.Hour // how long a login that had mail delivered counts as one that sends here
)

// Bounds.
const (
	ringSize      = 64
	maxTexts      = 64
	maxLogins     = 1024
	maxIdentities = 1024
	maxNames      = 8  // logins and domains that a storm names
	maxThrough    = 64 // logins whose deliveries are counted apart
)

// Verdict says what becomes of a refusal.
type Verdict uint8

// The verdicts. All but Believe keep the mail.
const (
	Believe      Verdict = iota
	KeepMessage          // it says nothing about other mail, and is tried again
	KeepSender           // others may send: mail of this sender waits
	KeepIdentity         // the identity pauses
)

// Attempt is one message that was offered.
type Attempt struct {
	Identity string
	Login    string // Null for mail with a null reverse-path, whoever submitted it
	Domain   string // of a recipient: the first that was refused, or one that it was taken for
	Internal bool   // Domain is the sender's own: such mail often passes where all other is blocked
}

// Refusal is a permanent refusal of one message, for one or many of its recipients.
type Refusal struct {
	Attempt
	Stage    mail.Stage
	Reply    mail.Reply
	Personal []string // parts of this message's addresses, which replies repeat
	// Repeated: this message was refused in the same words before, and kept. That says nothing new.
	Repeated bool
}

// Null stands for the login of mail with a null reverse-path: reports and automatic answers are one sender.
const Null = "<>"

// Storm is one that goes on.
type Storm struct {
	Since   time.Time
	Sender  string // login whose mail alone is kept; "": everybody's
	Reply   mail.Reply
	Stage   mail.Stage
	Logins  []string // the first that met it
	Domains []string
	Kept    int // refusals that were not believed
}

// Watch follows the attempts at one upstream.
type Watch struct {
	mu  sync.Mutex // guards what follows
	all view
	own map[string]*view // by identity, where each sender is its own; nil: all is enough
}

// New makes a Watch. bySender: each sender is an identity of its own, with its own account at the provider.
func New(bySender bool) *Watch {
	w := &Watch{}
	if bySender {
		w.own = make(map[string]*view)
	} else {
		w.all.alone = true
	}
	return w
}

// Delivered notes that a message was taken for one recipient at least. It ends storms.
func (w *Watch) Delivered(now time.Time, a Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.delivered(now, &a)
	if w.own != nil {
		w.identity(a.Identity).delivered(now, &a)
	}
}

// Refused notes a refusal and says whether to believe it, and whether a storm begins with it.
func (w *Watch) Refused(now time.Time, r Refusal) (verdict Verdict, begun bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	words := Words(r.Reply, r.Personal...)
	verdict, begun = w.all.refused(now, &r, words)
	if w.own != nil {
		own, more := w.identity(r.Identity).refused(now, &r, words)
		verdict, begun = max(verdict, own), begun || more
	}
	return verdict, begun
}

// Explained forgets what is known of a text: a person has written a rule that decides about it.
func (w *Watch) Explained(r mail.Reply, personal ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	words := Words(r, personal...)
	w.all.forget(r, words)
	for _, v := range w.own {
		v.forget(r, words)
	}
}

// About returns the storm that keeps an identity's, or one of its senders', mail with this reply; false: there is none.
func (w *Watch) About(identity string, r mail.Reply, personal ...string) (Storm, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	views := []*view{&w.all}
	if v := w.own[mail.LowerASCII(identity)]; v != nil {
		views = append(views, v)
	}
	for _, v := range views {
		if t := v.raging(r, personal); t != nil {
			s := t.storm.Storm
			s.Logins, s.Domains = slices.Clone(s.Logins), slices.Clone(s.Domains)
			return s, true
		}
	}
	return Storm{}, false
}

// Raging lists the storms that go on, the longest first.
func (w *Watch) Raging() []Storm {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all.storms(nil)
	for _, v := range w.own {
		all = v.storms(all)
	}
	slices.SortFunc(all, func(a, b Storm) int { return a.Since.Compare(b.Since) })
	return all
}

// identity returns the view of one, making room by the one that was used longest ago.
func (w *Watch) identity(name string) *view {
	name = mail.LowerASCII(name)
	if v := w.own[name]; v != nil {
		return v
	}
	if len(w.own) >= maxIdentities {
		var oldest string
		for n, v := range w.own {
			if o := w.own[oldest]; o == nil || v.used.Before(o.used) {
				oldest = n
			}
		}
		delete(w.own, oldest)
	}
	v := &view{alone: true}
	w.own[name] = v
	return v
}
