package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"postern/relay/trial"
	"postern/relay/upstream/advice"
)

// testPrinter prints the steps of a test of an upstream.
type testPrinter struct {
	w     io.Writer
	group string // sender and identity whose heading was printed
}

// step prints a step, under a heading where it begins the mail of another sender.
func (p *testPrinter) step(s *trial.Step) {
	if s.Name != "mail" && s.Sender != "" && s.Sender+s.Identity != p.group {
		p.group = s.Sender + s.Identity
		fmt.Fprintf(p.w, "\nmail of %s, logged in as %s\n", s.Sender, s.Identity)
	}
	writeStep(p.w, s)
}

// end prints what all steps come to.
func (p *testPrinter) end(r *trial.Report) {
	w := p.w
	if r.OK {
		fmt.Fprintln(w, "\nThe upstream would take mail from us.")
	}
	if len(r.NotTested) > 0 {
		fmt.Fprintf(w, "Senders that were not tried: %s. %s\n", strings.Join(r.NotTested, ", "), r.Why)
	}
	if r.OK && r.Unproven != "" {
		fmt.Fprintln(w, r.Unproven)
	}
}

func writeStep(w io.Writer, s *trial.Step) {
	mark := "ok  "
	if !s.OK {
		mark = "FAIL"
	}
	seen := s.Seen
	seen = cmp.Or(seen, s.Sender)
	first, more, _ := strings.Cut(seen, "\n")
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %-9s %8s  %s", mark, s.Name, s.Took.Round(time.Millisecond),
		first), " "))
	for line := range strings.SplitSeq(more, "\n") {
		if line != "" {
			fmt.Fprintf(w, "%26s%s\n", "", line)
		}
	}
	if s.OK {
		return
	}
	cause := s.Cause
	if s.Advice != nil {
		cause = s.Advice.Cause
	}
	fmt.Fprintf(w, "\n      %s\n", cause)
	if s.Name != "mail" && !s.Ours && s.Reply.Code != 0 && !strings.Contains(cause, s.Reply.String()) {
		fmt.Fprintf(w, "      It said: %s\n", s.Reply)
	}
	if s.Advice != nil {
		writeFix(w, s.Advice)
	}
	fmt.Fprintln(w)
}

func writeFix(w io.Writer, a *advice.Advice) {
	for i, fix := range a.Fix {
		fmt.Fprintf(w, "      %d. %s\n", i+1, fix)
	}
	fmt.Fprintf(w, "      See %s\n", a.Source)
	if a.Unsure {
		fmt.Fprintln(w, "      (The provider's own text does not confirm every step.)")
	}
}
