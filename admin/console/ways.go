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

// command is one of PowerShell or of the shell at the end of a step, or all of it.
var command = regexp.MustCompile(`^(?:(.*): )?([A-Z][a-z]+-[A-Z]\w+ -.*|(?:postern|sudo|systemctl|timedatectl|` +
	`journalctl|chmod|chown|dmesg|df|du|ss) .*[^.])$`)

// among is where a command stands among other text.
var among = regexp.MustCompile(`, (or|and|oder|und) |: postern `)

// waysIn are the steps that lines of text name, and whether they are alternatives.
func waysIn(v *visit, lines []string) (steps []way, any bool) {
	for _, line := range lines {
		if line = plain(2000, strings.TrimSpace(line)); line == "" {
			continue
		}
		any = any || strings.HasPrefix(line, "Or ")
		step := way{Said: v.said(line)}
		found := command.FindStringSubmatch(step.Text)
		if found != nil && !among.MatchString(found[2]) {
			if step.Text = found[1]; step.Text != "" {
				step.Text += ":"
			}
			step.Command = found[2]
		}
		steps = append(steps, step)
	}
	return steps, any
}

// waysOf are those that advice names. Alternatives begin with "Or".
func waysOf(v *visit, a *operate.Advised, reply string) ways {
	w := ways{Cause: v.said(plain(800, a.Advice.Cause))}
	lines := []string{plain(800, a.Advice.Cause)}
	for _, fix := range a.Advice.Fix {
		lines = append(lines, "- "+plain(1000, fix))
	}
	w.Steps, w.Any = waysIn(v, a.Advice.Fix)
	if reply != "" {
		lines = append(lines, "Answer: "+plain(1000, reply))
	}
	w.Whole = strings.Join(append(lines, "See "+plain(300, a.Advice.Source)), "\n")
	return w
}
