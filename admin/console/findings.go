package console

import (
	"strings"

	"postern/relay/finding"
)

// findingsOf are what is wrong, the heaviest first, and what was found in order.
type findings struct {
	Wrong []findingView
	Fine  []findingView
	More  int // than are shown
}

// findingView is one finding. Its texts are English; the sheet says them in the visitor's language.
type findingView struct {
	finding.Finding
	Icon, Word string
	Steps      []way // the lines of Fix
	Any        bool  // one of them is enough
	Mend       *mend // where that is done; nil: not here
}

// count is how many findings have a weight.
type count struct {
	Icon, Word string
	N          int
}

// shownFindings bounds a page.
const shownFindings = 300

// findingsOf shows findings; domain is that of the page, "" elsewhere.
func findingsOf(v *visit, list []finding.Finding, domain string) (f findings) {
	for _, each := range list {
		if len(f.Wrong)+len(f.Fine) == shownFindings {
			f.More = len(list) - shownFindings
			break
		}
		view := findingView{Finding: each, Mend: mendOf(v, each.Code, each.Subject, domain, each.Weight)}
		view.Icon, view.Word = weightOf(v, each.Weight)
		if strings.HasPrefix(each.What, each.Subject+":") { // a line of relay.toml
			view.Subject = ""
		}
		view.Steps, view.Any = waysIn(v, strings.Split(each.Fix, "\n"))
		if each.Weight == finding.Healthy {
			f.Fine = append(f.Fine, view)
		} else {
			f.Wrong = append(f.Wrong, view)
		}
	}
	return f
}

// about leaves a subject out that the page names already.
func (f findings) about(subject string) findings {
	for _, list := range [][]findingView{f.Wrong, f.Fine} {
		for i := range list {
			if list[i].Subject == subject {
				list[i].Subject = ""
			}
		}
	}
	return f
}

// weightOf says how much a finding matters.
func weightOf(v *visit, w finding.Weight) (icon, word string) {
	switch w {
	case finding.Danger:
		return "bad", v.t("mail is in danger")
	case finding.Fault:
		return "warn", v.t("does not work")
	case finding.Advice:
		return "info", v.t("could be better")
	}
	return "ok", v.t("in order")
}

// countFindings counts findings by weight, those in order aside.
func countFindings(v *visit, list []finding.Finding) (all []count) {
	for w := finding.Danger; w < finding.Healthy; w++ {
		n := 0
		for _, f := range list {
			if f.Weight == w {
				n++
			}
		}
		if n > 0 {
			icon, word := weightOf(v, w)
			all = append(all, count{icon, word, n})
		}
	}
	return all
}
