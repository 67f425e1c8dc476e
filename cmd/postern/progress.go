package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progressAfter is how long a person looks at a terminal on which nothing happens before they wonder.
const progressAfter = 2 * time.Second

// progress tells of the steps of a long work: of one that takes long itself, and of another where nothing was told for
// long. Work that is over at once says nothing.
type progress struct {
	out io.Writer

	mu   sync.Mutex // guards what follows, and out
	told time.Time
	next *time.Timer // tells of the present step
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, told: time.Now()}
}

// step is what begins.
func (p *progress) step(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
	began := time.Now()
	if began.Sub(p.told) >= progressAfter {
		p.tell(began, what)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(progressAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.next == timer { // it is the present step still
			p.tell(began, what)
		}
	})
	p.next = timer
}

// end says that there are no more steps.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

func (p *progress) drop() {
	if p.next != nil {
		p.next.Stop()
		p.next = nil
	}
}

func (p *progress) tell(began time.Time, what string) {
	p.told = time.Now()
	fmt.Fprintln(p.out, began.Format(time.TimeOnly), what)
}
