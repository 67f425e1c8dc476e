package sink

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"

	"postern/internal/fakesmtp"
)

// Stage is a point of a session at which a Fault happens.
type Stage string

// The stages. Rcpt is asked for each RCPT; Dot for each transaction with its first recipient.
const (
	AtConnect  Stage = "connect"
	AtEHLO     Stage = "ehlo"
	AtStartTLS Stage = "starttls"
	AtAuth     Stage = "auth"
	AtMail     Stage = "mail"
	AtRcpt     Stage = "rcpt"
	AtData     Stage = "data" // in the place of 354, or of the reply to BDAT
	AtBody     Stage = "body" // in the middle of the transfer
	AtDot      Stage = "dot"  // when the message has arrived whole
)

var stages = []Stage{AtConnect, AtEHLO, AtStartTLS, AtAuth, AtMail, AtRcpt, AtData, AtBody, AtDot}

// Action is what a Fault does.
type Action string

// The actions. Taken is for AtDot only.
const (
	Answer Action = "reply" // answer Reply; at AtConnect and with 421 close after it
	Hangup Action = "close" // close without a word; what came is not taken
	Taken  Action = "taken" // take and count the message, then close without a reply: it must come again
	Stall  Action = "stall" // say nothing more until the other side gives up
)

// Fault is something that goes wrong on demand.
type Fault struct {
	Stage       Stage   `json:"stage"`
	Action      Action  `json:"action,omitempty"`      // "": reply
	Reply       string  `json:"reply,omitempty"`       // "451 4.3.0 text"
	Probability float64 `json:"probability,omitempty"` // 0: always
	Recipient   string  `json:"recipient,omitempty"`   // pattern with * for Rcpt and later; "": any
	Times       int     `json:"times,omitempty"`       // at most so often; 0: no bound
}

var replyForm = regexp.MustCompile(`^[245]\d\d [ -~]{0,400}$`)

func (f Fault) validate() error {
	if !slices.Contains(stages, f.Stage) {
		return fmt.Errorf("fault: unknown stage %q", f.Stage)
	}
	switch f.Action {
	case Answer:
		if !replyForm.MatchString(f.Reply) {
			return fmt.Errorf("fault at %s: %q is not a reply", f.Stage, f.Reply)
		}
	case Taken:
		if f.Stage != AtDot {
			return fmt.Errorf("fault at %s: a message is taken only at %s", f.Stage, AtDot)
		}
	case Hangup, Stall:
	default:
		return fmt.Errorf("fault at %s: unknown action %q", f.Stage, f.Action)
	}
	if f.Probability < 0 || f.Probability > 1 {
		return fmt.Errorf("fault at %s: probability %v", f.Stage, f.Probability)
	}
	if _, err := path.Match(f.Recipient, ""); err != nil {
		return fmt.Errorf("fault at %s: recipient %q: %w", f.Stage, f.Recipient, err)
	}
	return nil
}

// faultTable decides. While there is nothing to decide it costs one atomic read.
type faultTable struct {
	armed atomic.Bool
	made  atomic.Int64

	mu     sync.Mutex
	faults []Fault
	left   []int // of Times; -1: no bound
	dice   *rand.Rand
}

func (t *faultTable) init(seed uint64) { t.dice = rand.New(rand.NewPCG(seed, 0)) }

func (t *faultTable) set(faults []Fault) error {
	faults = slices.Clone(faults)
	left := make([]int, len(faults))
	for i := range faults {
		faults[i].Action = cmp.Or(faults[i].Action, Answer)
		if err := faults[i].validate(); err != nil {
			return err
		}
		if left[i] = faults[i].Times; left[i] == 0 {
			left[i] = -1
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults, t.left = faults, left
	t.armed.Store(len(faults) > 0)
	return nil
}

// at returns the fault that happens now at a stage.
func (t *faultTable) at(stage Stage, recipient string) (Fault, bool) {
	if !t.armed.Load() {
		return Fault{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range t.faults {
		if f.Stage != stage || t.left[i] == 0 || f.Recipient != "" && !match(f.Recipient, recipient) {
			continue
		}
		if f.Probability > 0 && t.dice.Float64() >= f.Probability {
			continue
		}
		if t.left[i] > 0 {
			t.left[i]--
		}
		t.made.Add(1)
		return f, true
	}
	return Fault{}, false
}

func match(pattern, recipient string) bool {
	ok, _ := path.Match(pattern, recipient)
	return ok
}

// verbs are the stages of a session that a hook sees. AtBody and AtDot are the transfer's.
var verbs = map[string]Stage{
	fakesmtp.Connect: AtConnect, "EHLO": AtEHLO, "HELO": AtEHLO, "STARTTLS": AtStartTLS, "AUTH": AtAuth, "MAIL": AtMail,
	"RCPT": AtRcpt, "DATA": AtData, "BDAT": AtData,
}

// hook carries out what is to go wrong with a command.
func (s *Sink) hook(c *fakesmtp.Session, verb, line string) fakesmtp.Action {
	m := c.Message()
	stage, known := verbs[verb]
	if !known || verb == "BDAT" && m.Chunked { // the first chunk has been let
		return fakesmtp.Action{}
	}
	to := recipient(m)
	if stage == AtRcpt {
		to, _, _ = fakesmtp.Path(line)
	}
	f, ok := s.faults.at(stage, to)
	if !ok {
		return fakesmtp.Action{}
	}
	a := f.action()
	a.Drop = a.Drop || stage == AtConnect
	return a
}

func (f Fault) action() fakesmtp.Action {
	if f.Action == Answer {
		return fakesmtp.Action{Reply: f.Reply}
	}
	return fakesmtp.Action{Drop: f.Action == Hangup, Stall: f.Action == Stall}
}

// recipient is the first of a transaction.
func recipient(m fakesmtp.Message) string {
	if len(m.To) == 0 {
		return ""
	}
	to, _, _ := fakesmtp.Path(m.To[0])
	return to
}
