package ledger

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bounds of a ledger.
const (
	maxRuns  = 64
	maxSlots = 256 << 20 // counts, one octet each, over all runs and recipients
	maxList  = 100       // numbers listed in a proof
)

// Ledger counts the arrivals of numbered messages. It is safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	runs  map[string]*account
	slots int
	lost  int64 // deliveries of runs beyond maxRuns
}

// account is one run.
type account struct {
	Summary
	counts map[string][]uint8 // per recipient, by number; saturating
}

// Summary is a run at a glance.
type Summary struct {
	Run        string    `json:"run"`
	Messages   int64     `json:"messages"`   // transactions that arrived whole
	Deliveries int64     `json:"deliveries"` // recipients of them
	Repeated   int64     `json:"repeated"`   // deliveries beyond the first of a number to a recipient
	Corrupt    int64     `json:"corrupt"`    // messages whose body is not the one sent; not counted as arrived
	Overflow   int64     `json:"overflow"`   // deliveries that the ledger had no room for
	Octets     int64     `json:"octets"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
}

// New returns an empty ledger.
func New() *Ledger { return &Ledger{runs: make(map[string]*account)} }

// Record counts a message that arrived whole. size and crc are those of the received body.
func (l *Ledger) Record(s Stamp, recipients []string, octets, size int64, crc uint32, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accountLocked(s.Run)
	if a == nil {
		l.lost += int64(len(recipients))
		return
	}
	if size != s.Size || crc != s.CRC {
		a.Corrupt++
		return
	}
	if a.First.IsZero() {
		a.First = now
	}
	a.Last = now
	a.Messages++
	a.Octets += octets
	for _, r := range recipients {
		l.countLocked(a, r, s.Seq)
	}
}

// accountLocked returns the account of a run, nil if there are too many.
func (l *Ledger) accountLocked(run string) *account {
	if a := l.runs[run]; a != nil {
		return a
	}
	if len(l.runs) >= maxRuns {
		return nil
	}
	a := &account{Summary: Summary{Run: run}, counts: make(map[string][]uint8)}
	l.runs[run] = a
	return a
}

func (l *Ledger) countLocked(a *account, recipient string, seq int) {
	counts := a.counts[recipient]
	if grow := seq + 1 - len(counts); grow > 0 {
		grow = min(max(grow, len(counts), 1024), MaxSeq+1-len(counts))
		if l.slots+grow > maxSlots {
			a.Overflow++
			return
		}
		l.slots += grow
		counts = append(counts, make([]uint8, grow)...)
		a.counts[recipient] = counts
	}
	a.Deliveries++
	if counts[seq] > 0 {
		a.Repeated++
	}
	if counts[seq] < 255 {
		counts[seq]++
	}
}

// Summary returns the state of a run.
func (l *Ledger) Summary(run string) Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.runs[run]; a != nil {
		return a.Summary
	}
	return Summary{Run: run}
}

// Summaries returns all runs in order of name.
func (l *Ledger) Summaries() []Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Summary
	for _, name := range slices.Sorted(maps.Keys(l.runs)) {
		out = append(out, l.runs[name].Summary)
	}
	return out
}

// Reset forgets everything.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs, l.slots, l.lost = make(map[string]*account), 0, 0
}

// Claim is what the sender says about a run.
type Claim struct {
	Run        string   `json:"run"`
	Recipients []string `json:"recipients"` // of every message
	Accepted   Set      `json:"accepted"`   // answered 250
	Uncertain  Set      `json:"uncertain"`  // connection lost after the final dot: may or may not have been taken
}

// Delivery is a number at a recipient.
type Delivery struct {
	Seq       int    `json:"seq"`
	Recipient string `json:"recipient"`
	Count     int    `json:"count"`
}

// Proof compares what was accepted with what arrived. Its lists have at most 100 entries.
type Proof struct {
	Claimed    int        `json:"claimed"` // deliveries that must have arrived
	Arrived    int        `json:"arrived"` // of those, at least once
	Missing    int        `json:"missing"`
	Duplicates int        `json:"duplicates"` // arrived more than once
	Unclaimed  int        `json:"unclaimed"`  // arrived though neither accepted nor uncertain
	Corrupt    int64      `json:"corrupt"`
	Overflow   int64      `json:"overflow"`
	Lost       []Delivery `json:"lost,omitempty"`
	Twice      []Delivery `json:"twice,omitempty"`
	Foreign    []Delivery `json:"foreign,omitempty"`
}

// OK reports whether everything accepted arrived once, unchanged, and nothing else did.
func (p Proof) OK() bool {
	return p.Missing == 0 && p.Duplicates == 0 && p.Unclaimed == 0 && p.Corrupt == 0 && p.Overflow == 0
}

// Lossless reports whether everything accepted arrived at least once and unchanged. That must hold even over crashes,
// after which a delivery whose reply was lost is repeated.
func (p Proof) Lossless() bool {
	return p.Missing == 0 && p.Unclaimed == 0 && p.Corrupt == 0 && p.Overflow == 0
}

// Check compares a claim with what arrived.
func (l *Ledger) Check(c Claim) Proof {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.runs[c.Run]
	if a == nil { // nothing came, or there was no room for it
		a = &account{Summary: Summary{Overflow: l.lost}}
	}
	p := Proof{Corrupt: a.Corrupt, Overflow: a.Overflow}
	for _, r := range c.Recipients {
		p.compare(&c, r, a.counts[r])
	}
	for r, counts := range a.counts {
		if !slices.Contains(c.Recipients, r) {
			p.compare(&Claim{}, r, counts) // a recipient that nobody named
		}
	}
	return p
}

func (p *Proof) compare(c *Claim, recipient string, counts []uint8) {
	for seq := range max(c.Accepted.limit(), len(counts)) {
		n := 0
		if seq < len(counts) {
			n = int(counts[seq])
		}
		d := Delivery{Seq: seq, Recipient: recipient, Count: n}
		accepted := c.Accepted.Has(seq)
		if accepted {
			p.Claimed++
		}
		switch {
		case accepted && n == 0:
			p.Missing++
			p.Lost = list(p.Lost, d)
		case accepted:
			p.Arrived++
		case n > 0 && !c.Uncertain.Has(seq):
			p.Unclaimed++
			p.Foreign = list(p.Foreign, d)
		}
		if n > 1 {
			p.Duplicates++
			p.Twice = list(p.Twice, d)
		}
	}
}

func list(all []Delivery, d Delivery) []Delivery {
	if len(all) == maxList {
		return all
	}
	return append(all, d)
}

// line is one line of a written ledger.
type line struct {
	Run       string   `json:"run"`
	Recipient string   `json:"recipient"`
	Arrived   Set      `json:"arrived"`
	Repeated  [][2]int `json:"repeated,omitempty"` // number and count
}

// WriteTo writes the ledger as JSON lines, one for each run and recipient, in order.
func (l *Ledger) WriteTo(w io.Writer) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &counter{w: w}
	enc := json.NewEncoder(out)
	for _, name := range slices.Sorted(maps.Keys(l.runs)) {
		a := l.runs[name]
		for _, r := range slices.Sorted(maps.Keys(a.counts)) {
			ln := line{Run: name, Recipient: r}
			for seq, n := range a.counts[r] {
				if n > 0 {
					ln.Arrived.Add(seq)
				}
				if n > 1 {
					ln.Repeated = append(ln.Repeated, [2]int{seq, int(n)})
				}
			}
			if err := enc.Encode(ln); err != nil {
				return out.n, err
			}
		}
	}
	return out.n, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
