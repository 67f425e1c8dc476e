package main

import (
	"strings"

	"postern/relay/finding"
)

// findings prints what is wrong, the heaviest first as they come, and then in one line each what is in order.
func (p *page) findings(list []finding.Finding) {
	var healthy []string
	for _, f := range list {
		if f.Weight >= finding.Healthy {
			healthy = append(healthy, f.What)
			continue
		}
		p.line("")
		p.line("%s  %s", strings.ToUpper(f.Weight.String()), f.What)
		p.line("  Why it matters: %s", f.Why)
		label := "  What to do: "
		for line := range strings.Lines(f.Fix) {
			p.line("%s%s", label, strings.TrimSuffix(line, "\n"))
			label = "    "
		}
	}
	if len(healthy) == 0 {
		return
	}
	p.line("")
	p.line("IN ORDER")
	for _, what := range healthy {
		p.line("  %s", what)
	}
}
