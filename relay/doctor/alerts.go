package doctor

import (
	"context"

	"postern/relay/alert"
	"postern/relay/finding"
	"postern/relay/monitor"
)

// alertExam looks at hooks.
type alertExam struct{ *exam }

// alerts connects to each hook and posts nothing.
func (x alertExam) alerts(ctx context.Context) (list []finding.Finding) {
	if !x.complete {
		return []finding.Finding{skipped("alerts", "No hook was tried, since relay.toml is wrong elsewhere.",
			"Mend it, and run postern doctor again.")}
	}
	if len(x.c.Alerts) == 0 {
		return []finding.Finding{found(codeAlertNone, finding.Advice, "alerts",
			"Nobody is told when mail stops leaving.",
			"When the provider refuses us, mail cannot say so. People notice after hours, by what does not arrive.",
			"Write an [[alert]] with the address of a hook (Teams, Slack, ntfy and others) to "+x.Path+", and try it: "+
				"postern alert test")}
	}
	hooks, err := monitor.HooksOf(x.c)
	if err != nil {
		return []finding.Finding{found(codeAlertUnreachable, finding.Fault, "alerts", sentence(said(err.Error())),
			"Nobody is told when mail stops leaving.", "Mend it in "+x.Path+", then: postern alert test")}
	}
	for _, h := range hooks {
		subject := h.Name + " (" + said(h.Host()) + ")"
		if err := alert.Reach(ctx, h); err != nil {
			list = append(list, found(codeAlertUnreachable, finding.Fault, subject, "The hook cannot be reached: "+
				sentence(reason(err)), "Nobody hears by it when mail stops leaving.",
				"Look at its address in "+x.Path+
					", and whether this machine may connect there (firewall, proxy). Then: "+
					"postern alert test"))
			continue
		}
		list = append(list, fine(codeAlertOK, subject,
			"It can be reached. What it does with an alert shows postern alert "+
				"test."))
	}
	return list
}
