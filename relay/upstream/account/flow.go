package account

// flow is how many slots an identity has at once. It falls when the upstream says that it is too much at a time and
// rises again while it does not, by fractions and with hysteresis, as Postfix's SCHEDULER_README has it: the first
// complaint costs a slot; further ones of the same batch must add up to a whole before they cost another; it takes
// many successes with every slot in use to get one back, and a complaint begins that count anew. What is configured is
// never exceeded.
//
// It is pure; the caller holds the lock.
type flow struct {
	most   int
	now    int
	rise   float64 // successes towards the next slot
	credit float64 // what complaints may still use up before a slot goes
	streak int     // complaints since the last success
}

// riseShare is how many rounds of success with all slots in use give one back: a limit that is met on the way up costs
// one attempt each time.
const riseShare = 4

func newFlow(most int) flow { return flow{most: most, now: most} }

// worked notes a success while busy slots were in use, this one among them.
func (f *flow) worked(busy int) {
	f.streak = 0
	if f.now >= f.most || busy < f.now {
		return
	}
	f.rise += 1 / float64(riseShare*f.now)
	if f.rise >= 1 {
		f.now++
		f.rise, f.credit = 0, 0
	}
}

// slowed notes a complaint. It reports whether the identity has to wait: when there was no slot to take away, or when
// nobody got through while every slot was tried, which is a matter of rate.
func (f *flow) slowed() (waits bool) {
	f.rise = 0
	f.streak++
	if f.streak > f.now {
		f.streak, waits = 0, true
	}
	return f.lower() || waits
}

// lower takes a slot away when complaints have added up to it. It reports whether there is none to take.
func (f *flow) lower() (floor bool) {
	f.credit -= 1 / float64(f.now)
	if f.credit >= -1e-9 { // fractions that make a whole may miss it by a hair
		return false
	}
	if f.now == 1 {
		f.credit = 0
		return true
	}
	f.now--
	f.credit = 1
	return false
}
