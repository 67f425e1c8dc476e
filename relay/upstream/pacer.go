package upstream

import "time"

// Pacer holds one identity to its rates, for transports other than SMTP. It is pure; the caller passes the time and holds the
// lock. What a message has in recipients is counted when it was sent: up to one message for each place may go over a rate of
// recipients.
type Pacer struct{ pace pace }

// NewPacer makes a Pacer of rates that Rate.Check has passed.
func NewPacer(rates []Rate) Pacer { return Pacer{newPace(rates, nil)} }

// Reserve takes room for one message, which Settle gives back. Without room it tells when there will be some, or that
// something under way has to end first (busy).
func (p *Pacer) Reserve(now time.Time) (until time.Time, busy bool) {
	until, busy = p.pace.wait(now, share{}, least)
	if !busy && until.IsZero() {
		p.pace.take(&share{}, least)
	}
	return until, busy
}

// Settle ends what Reserve began and counts what was sent.
func (p *Pacer) Settle(now time.Time, messages, recipients int) {
	taken := least
	p.pace.settle(now, &taken, share{int64(messages), int64(recipients)})
}

// Inherit takes over what another Pacer has counted, for rates of the same unit and length. What is under way there counts as
// sent now.
func (p *Pacer) Inherit(now time.Time, old *Pacer) {
	for i := range old.pace {
		from := &old.pace[i]
		from.advance(now)
		m := p.pace.meter(from.unit, from.span)
		if m == nil {
			continue
		}
		for c := from.head - cells; c <= from.head; c++ {
			m.restore(now, from.leaves(c), int64(from.used[from.index(c)]))
		}
		if from.flying > 0 {
			m.count(now, from.flying)
		}
	}
}

// Counts is what a restart must not forget: see Quota. What is under way is not in it.
func (p *Pacer) Counts(now time.Time) []QuotaCount {
	var counts []QuotaCount
	for i := range p.pace {
		counts = p.pace[i].appendCounts(counts, now)
	}
	return counts
}

// Restore counts what Counts has told, for rates of the same unit and length.
func (p *Pacer) Restore(now time.Time, counts []QuotaCount) {
	for _, c := range counts {
		if m := p.pace.meter(c.Unit, c.Per); m != nil {
			m.restore(now, c.Leaves, c.Count)
		}
	}
}

// Blank reports that there is nothing to remember.
func (p *Pacer) Blank(now time.Time) bool { return p.pace.blank(now) }

// States is how much of each rate is used.
func (p *Pacer) States(now time.Time) []RateState { return p.pace.states(now) }
