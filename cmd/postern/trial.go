package main

import (
	"fmt"
	"sync"
	"time"

	"postern/relay/trial"
	"postern/relay/upstream"
)

// The waits of `upstream test`: a person sits before it. In a delivery they are those of RFC 5321, minutes long.
const (
	trialTimeout = 30 * time.Second // for each way to a login
	patienceTime = 2 * time.Second  // then it is said what is waited for
)

// liveTest prints the steps of a test as they happen. Its methods are safe for concurrent use.
type liveTest struct {
	print  *testPrinter // nil: the report is printed whole at the end
	report *trial.Report
	limit  time.Duration // of each step
	target string        // host and port

	mu   sync.Mutex // guards what follows, the report and the writer
	wait *time.Timer
}

// watch is what the test tells of itself.
func (l *liveTest) watch(timeout time.Duration) upstream.Trial {
	return upstream.Trial{Limit: l.limit, Total: timeout, Begin: l.begin, Done: l.done}
}

// begin sees to it that a step that takes long is named before it ends.
func (l *liveTest) begin(name string) {
	if l.print == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopLocked()
	var own *time.Timer
	own = time.AfterFunc(patienceTime, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.wait == own {
			fmt.Fprintf(l.print.w, "...   %-9s waiting for %s, %s at most\n", name, l.target, l.limit)
		}
	})
	l.wait = own
}

func (l *liveTest) stopLocked() {
	if l.wait != nil {
		l.wait.Stop()
		l.wait = nil
	}
}

func (l *liveTest) done(s upstream.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopLocked()
	step := l.report.Add(s)
	if !step.OK && s.Took >= l.limit {
		step.Cause += fmt.Sprintf(" It had %s; give it longer with --timeout.", l.limit)
	}
	if l.print != nil {
		l.print.step(step)
	}
}

// end prints what is left to say.
func (l *liveTest) end() *trial.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopLocked()
	if l.print != nil {
		l.print.end(l.report)
	}
	return l.report
}
