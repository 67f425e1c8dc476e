package doctor

import (
	"context"
	"fmt"
	"time"

	"postern/relay/config"
	"postern/relay/finding"
	"postern/relay/trial"
)

// clockExam looks at the clock.
type clockExam struct{ *exam }

// How far the clock may be off. Login services refuse signed requests that are five minutes off or less, and mail
// whose Date is hours off counts as spam.
const (
	clockDanger = 5 * time.Minute
	clockFault  = 30 * time.Second // what an answer may take is within it
	clockAsk    = 10 * time.Second
)

// clocks asks the kernel whether something keeps the clock right, and a login service that we use anyway what time it
// is.
func (x clockExam) clocks(ctx context.Context) (list []finding.Finding) {
	if synchronised, known := x.machine.clock(); known && !synchronised {
		list = append(list, found(codeClockFree, finding.Advice, "clock", "Nothing keeps this machine's clock right.",
			"A clock that drifts makes logins at the provider fail, and certificates look expired.",
			"timedatectl set-ntp true\nSee whether it works: timedatectl status"))
	} else if known {
		list = append(list, fine(codeClockOK, "clock", "The clock is kept right by the network (as the kernel says)."))
	}
	off, host, known := x.clockOffset(ctx)
	switch {
	case !known && len(list) == 0:
		list = append(list, skipped("clock", "Nobody could be asked what time it is.",
			"Compare the clock by hand: date -u"))
	case !known:
	case off.Abs() > clockFault:
		w := finding.Fault
		if off.Abs() > clockDanger {
			w = finding.Danger
		}
		way := "ahead"
		if off < 0 {
			way = "behind"
		}
		list = append(list, found(codeClockWrong, w, "clock", fmt.Sprintf("This machine's clock is %s %s of %s.",
			off.Abs().Round(time.Second), way, said(host)),
			"Login services refuse requests with a wrong time, certificates look expired or not yet valid, "+
				"and mail with "+
				"a wrong date is taken for spam.",
			"Set the clock and let the network keep it: timedatectl set-ntp true"))
	default:
		list = append(list, fine(codeClockOK, "clock", "The clock agrees with %s.", said(host)))
	}
	return list
}

// clockOffset compares the clock with the first login service that answers. It is positive where ours is ahead.
func (x clockExam) clockOffset(ctx context.Context) (off time.Duration, host string, known bool) {
	if !x.complete {
		return 0, "", false
	}
	for _, u := range x.c.Upstreams {
		if u.OAuth == nil {
			continue
		}
		if off, host, err := x.askTime(ctx, u); err == nil {
			return off, host, true
		}
	}
	return 0, "", false
}

func (x clockExam) askTime(ctx context.Context, u config.Upstream) (time.Duration, string, error) {
	ctx, cancel := context.WithTimeout(ctx, clockAsk)
	defer cancel()
	source, done, err := trial.Tokens(ctx, x.c, u)
	if err != nil {
		return 0, "", err
	}
	defer done()
	before := x.clock()
	theirs, err := source.ServerTime(ctx)
	if err != nil {
		return 0, "", err
	}
	after := x.clock()
	ours := before.Add(after.Sub(before) / 2)
	return ours.Sub(theirs.Add(time.Second / 2)), "the login service of upstream " + u.Name, nil
}

func (x clockExam) clock() time.Time {
	if x.Options.now != nil {
		return x.Options.now()
	}
	return time.Now()
}
