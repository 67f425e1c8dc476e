package console

import (
	"regexp"
	"strings"

	"postern/operate"
)

// ways are what may be done about a refusal.
type ways struct {
	Cause Said
	Any   bool // one of them is enough
	Steps []way
	Whole string // all of it in English, for whoever looks after the provider
}

// way is a step, or one of several ways.
type way struct {
	Said
	Command string // to be copied, at its end; "": none
}

// command is one of PowerShell at the end of a step.
var command = regexp.MustCompile(`^(.*): ([A-Z][a-z]+-[A-Z]\w+ -.*)$`)

// waysOf are those that advice names. Alternatives begin with "Or".
func waysOf(v *visit, a *operate.Advised, reply string) ways {
	w := ways{Cause: v.said(plain(800, a.Advice.Cause))}
	lines := []string{plain(800, a.Advice.Cause)}
	for _, fix := range a.Advice.Fix {
		fix = plain(1000, fix)
		lines = append(lines, "- "+fix)
		w.Any = w.Any || strings.HasPrefix(fix, "Or ")
		step := way{Said: v.said(fix)}
		if found := command.FindStringSubmatch(step.Text); found != nil {
			step.Text, step.Command = found[1]+":", found[2]
		}
		w.Steps = append(w.Steps, step)
	}
	if reply != "" {
		lines = append(lines, "Answer: "+plain(1000, reply))
	}
	w.Whole = strings.Join(append(lines, "See "+plain(300, a.Advice.Source)), "\n")
	return w
}
