// Package doctor looks at everything that can keep mail from being taken or from leaving, from this machine, and says
// of each thing what is wrong, why it matters and what to do: for people who are no mail experts.
//
// Failure semantics: looking changes nothing, sends no mail and posts no alert. An examiner that hangs, panics or
// cannot look is a finding itself and keeps no other from being heard; what was not looked at is said, never counted as
// healthy. Whatever others say is bounded and made printable, and no finding has a secret in it.
package doctor

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/finding"
)

// Bounds of an examination.
const (
	atOnce      = 4                // examiners that look at the same time
	usualTime   = 30 * time.Second // of one examiner that does not say its own
	grace       = 2 * time.Second  // for one whose time is over, to say what it found
	maxFindings = 100              // of one examiner
	maxText     = 2000             // octets of what an outsider or a library says, within a finding
)

// Examiner looks at one kind of thing.
type Examiner struct {
	Name    string        // for people and --only, such as "listeners"
	Timeout time.Duration // 0: 30 s
	// Look returns what it finds, of healthy things too. It should return when its context ends.
	Look func(context.Context) []finding.Finding
}

// Report is what an examination came to.
type Report struct {
	Time     time.Time         `json:"time"`
	OK       bool              `json:"ok"` // mail is not in danger
	Worst    finding.Weight    `json:"worst"`
	Examined []string          `json:"examined"` // the names of the examiners
	Findings []finding.Finding `json:"findings"` // the heaviest first
}

// Examine runs all examiners that are chosen; none chosen: all.
func Examine(ctx context.Context, o Options) (*Report, error) {
	x := newExam(ctx, o)
	all := x.examiners()
	if x.c != nil && o.More != nil {
		all = append(all, o.More(x.c)...)
	}
	if x.c != nil && len(o.Only) > 0 { // else nothing but the configuration can be looked at
		var err error
		if all, err = chosen(all, o.Only); err != nil {
			return nil, err
		}
	}
	r := &Report{Time: x.now, Findings: run(ctx, all), Examined: []string{}}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, e := range all {
		r.Examined = append(r.Examined, e.Name)
	}
	finding.Sort(r.Findings)
	r.Worst = finding.Worst(r.Findings)
	r.OK = r.Worst != finding.Danger
	return r, nil
}

// chosen are the examiners with these names.
func chosen(all []Examiner, only []string) ([]Examiner, error) {
	var names []string
	for _, e := range all {
		names = append(names, e.Name)
	}
	for _, want := range only {
		if !slices.Contains(names, want) {
			return nil, fmt.Errorf("nothing examines %q; there are %s", mail.Printable(want), strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(e Examiner) bool { return !slices.Contains(only, e.Name) }), nil
}

// run lets examiners look, a few at a time, and returns what they found in their order.
func run(ctx context.Context, list []Examiner) []finding.Finding {
	found := make([][]finding.Finding, len(list))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, e := range list {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i] = e.run(ctx)
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

// run waits for an examiner no longer than its time and the grace. One that hangs on is left behind: its goroutine ends
// when what it waits for does.
func (e *Examiner) run(ctx context.Context) []finding.Finding {
	limit := e.Timeout
	if limit <= 0 {
		limit = usualTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if ctx.Err() != nil {
		return nil
	}
	found := make(chan []finding.Finding, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				found <- []finding.Finding{e.panicked(p, debug.Stack())}
			}
		}()
		found <- e.Look(ctx)
	}()
	late := time.NewTimer(limit + grace)
	defer late.Stop()
	select {
	case list := <-found:
		return e.bounded(list)
	case <-late.C:
		return []finding.Finding{e.hung(limit)}
	}
}

func (e *Examiner) hung(limit time.Duration) finding.Finding {
	return found(codeExaminerHung, finding.Fault, e.Name,
		fmt.Sprintf("The examination of %s did not end within %s.", e.Name, limit+grace),
		"What it looks at is not known to be in order. Something that it asked does not answer: a disk or network "+
			"file system, a name server, the store.",
		fmt.Sprintf("Try it alone: postern doctor --only %s\nIf it hangs again, look at the disk of data_dir and at "+
			"the name servers of this machine.", e.Name))
}

func (e *Examiner) panicked(p any, stack []byte) finding.Finding {
	where := ""
	for line := range strings.SplitSeq(string(stack), "\n") {
		if strings.HasPrefix(line, "postern/") && !strings.Contains(line, "doctor.(*Examiner)") {
			where = " in " + line[:strings.IndexAny(line+"(", "(")]
			break
		}
	}
	return found(codeExaminerFailed, finding.Fault, e.Name,
		fmt.Sprintf("The examination of %s failed by a fault of Postern's own%s: %s", e.Name, where,
			said(fmt.Sprint(p))),
		"What it looks at is not known to be in order. Mail is not touched by this.",
		"Report it to the makers of Postern, with this text and the output of: postern version")
}

func (e *Examiner) bounded(list []finding.Finding) []finding.Finding {
	finding.Sort(list)
	if len(list) <= maxFindings {
		return list
	}
	more := len(list) - maxFindings
	list = list[:maxFindings:maxFindings]
	return append(list, found(codeMoreFindings, list[maxFindings-1].Weight, e.Name,
		fmt.Sprintf("%d more findings of %s are not shown.", more, e.Name), "",
		"Mend those that are shown, and run postern doctor again."))
}

// found makes a finding. Its code stands in the catalogue.
func found(code string, w finding.Weight, subject, what, why, fix string) finding.Finding {
	return finding.Finding{Code: code, Weight: w, Subject: mail.Printable(mail.Cut(subject, maxText)), What: what,
		Why: why, Fix: fix}
}

// fine says that something was looked at and is in order.
func fine(code, subject, format string, args ...any) finding.Finding {
	return found(code, finding.Healthy, subject, fmt.Sprintf(format, args...), "", "")
}

// skipped says that something was not looked at.
func skipped(subject, why, fix string) finding.Finding {
	return found(codeNotExamined, finding.Advice, subject, why,
		"What nobody looked at may be broken.", fix)
}

// said bounds what others say, and keeps it from acting on a terminal. Line ends become spaces.
func said(text string) string {
	return mail.Printable(mail.Cut(strings.Join(strings.Fields(text), " "), maxText))
}

// sentence ends a text with a full stop.
func sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, "!") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

// octets writes a size as a person would read it, in powers of 1000.
func octets(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	case n < 10_000_000_000:
		return fmt.Sprintf("%d MB", n/1_000_000)
	}
	return fmt.Sprintf("%d GB", n/1_000_000_000)
}

// count writes a number of things.
func count[N int | int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
