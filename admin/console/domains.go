package console

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/dnscheck"
	"postern/relay/finding"
)

// domainsPage lists the domains that mail is sent from; domainPage shows what DNS says of one.
var (
	domainsPage = page{path: "/domains", title: "Domains", menu: true, needs: operate.SeeDomains, sheet: "domains",
		show: showDomains, actions: []action{
			{path: "/domains/act/look", needs: operate.LookAtDomain, do: lookAtDomain, sheet: "domain",
				title: "Domain"},
		}}
	domainPage = page{path: "/domains/{domain}", title: "Domain", under: "/domains", needs: operate.SeeDomains,
		sheet: "domain", show: showDomain, actions: keyActions}
)

// domainsView is the body of the list.
type domainsView struct {
	Rows    []domainRow
	Pager   pager
	Unseen  int // domains that nobody has looked at
	MayLook bool
	Here    string
}

// domainRowOf is a domain and what the last look at it came to.
type domainRow struct {
	Domain, Link string
	Icon, Word   string
	Report       *dnscheck.Report
	Outcomes     []outcome
	Counts       []count // findings that ask for something
	Keys         int
}

// outcome is what becomes of mail by one upstream.
type outcome struct {
	dnscheck.Outcome
	Icon, Word string
}

// viewDomain is the body of the page of one domain.
type domainView struct {
	domainRow
	Ours     bool
	Findings findings
	Keys     []keyRow
	May      keyRights
	MayLook  bool
}

// domainsOn is how many domains a page lists.
const domainsOn = 50

func showDomains(v *visit) (any, error) {
	states, err := v.console.Operations.Domains.List(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	keys, err := keysOf(v, "")
	if err != nil {
		return nil, err
	}
	view := &domainsView{MayLook: v.may(operate.LookAtDomain), Here: v.here()}
	slices.SortFunc(states, func(a, b operate.DomainState) int { return cmp.Compare(a.Domain, b.Domain) })
	next := ""
	for _, s := range states {
		if s.Report == nil {
			view.Unseen++
		}
		switch {
		case s.Domain <= v.URL.Query().Get("after"):
		case len(view.Rows) == domainsOn:
			next = view.Rows[domainsOn-1].Domain
		case next == "":
			row := domainRowOf(v, s)
			for _, k := range keys {
				if k.Domain == s.Domain {
					row.Keys++
				}
			}
			view.Rows = append(view.Rows, row)
		}
	}
	view.Pager = v.paged("after", next)
	return view, nil
}

// domainRowOf says what a domain's last look came to.
func domainRowOf(v *visit, s operate.DomainState) domainRow {
	row := domainRow{Domain: s.Domain, Link: "/domains/" + url.PathEscape(s.Domain), Report: s.Report,
		Icon: "info", Word: v.t("nobody has looked yet")}
	if s.Report == nil {
		return row
	}
	worst := dnscheck.ByDKIM
	for _, o := range s.Report.Outcomes {
		icon, word := outcomeOf(v, o.Verdict)
		row.Outcomes = append(row.Outcomes, outcome{o, icon, word})
		if severity(o.Verdict) > severity(worst) {
			worst = o.Verdict
		}
	}
	row.Counts = countFindings(v, s.Report.Findings)
	if row.Icon, row.Word = outcomeOf(v, worst); len(s.Report.Outcomes) == 0 {
		row.Icon, row.Word = weightOf(v, finding.Worst(s.Report.Findings))
	}
	return row
}

// severity orders verdicts, the worst last.
func severity(d dnscheck.Verdict) int {
	return slices.Index([]dnscheck.Verdict{dnscheck.ByDKIM, dnscheck.Unknown, dnscheck.BySPF, dnscheck.Fails}, d)
}

// outcomeOf says what becomes of mail.
func outcomeOf(v *visit, d dnscheck.Verdict) (icon, word string) {
	switch d {
	case dnscheck.ByDKIM:
		return "ok", v.t("passes by DKIM")
	case dnscheck.BySPF:
		return "warn", v.t("passes only by SPF")
	case dnscheck.Fails:
		return "bad", v.t("fails")
	}
	return "info", v.t("not known")
}

func showDomain(v *visit) (any, error) {
	name := strings.ToLower(mail.Cut(v.PathValue("domain"), maxFilter))
	states, err := v.console.Operations.Domains.List(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(states, func(s operate.DomainState) bool { return s.Domain == name })
	if i < 0 {
		return nil, &operate.Error{Kind: operate.NotFound,
			Msg: v.t("No mail is sent from %s, as far as relay.toml and the logins say.", plain(120, name))}
	}
	return viewDomain(v, states[i], true)
}

func viewDomain(v *visit, s operate.DomainState, ours bool) (*domainView, error) {
	view := &domainView{domainRow: domainRowOf(v, s), Ours: ours, MayLook: v.may(operate.LookAtDomain)}
	if s.Report != nil {
		view.Findings = findingsOf(v, s.Report.Findings, s.Domain).about(s.Domain)
		for i, f := range view.Findings.Wrong { // the page has these parts only where there is something in them
			m := f.Mend
			if m != nil && (m.Path == "#records" && len(s.Report.Records) == 0 || m.Path == "#keys" && !ours) {
				view.Findings.Wrong[i].Mend = nil
			}
		}
	}
	if !ours {
		return view, nil
	}
	var err error
	view.Keys, err = keysOf(v, s.Domain)
	view.May = keyRightsOf(v, view.Keys)
	return view, err
}

// Records are those that are to be published.
func (d *domainView) Records() []dnscheck.Record {
	if d.Report == nil {
		return nil
	}
	return d.Report.Records
}

// longestAction bounds an action that asks others, or counts long. Its answer may take as long.
const longestAction = 3 * time.Minute

// bePatient lets the answer to this request take longer than the server would let it. Where the server cannot be told,
// its own limits hold.
func bePatient(v *visit, d time.Duration) {
	c := http.NewResponseController(v.w)
	_ = c.SetReadDeadline(v.now.Add(d))
	_ = c.SetWriteDeadline(v.now.Add(d))
}

// lookAtDomain asks DNS about a domain. One of ours is shown by its page, another one here and not kept.
func lookAtDomain(v *visit) (string, any, error) {
	bePatient(v, longestAction)
	name := strings.TrimSpace(mail.Cut(v.PostForm.Get("domain"), maxFilter))
	report, ours, err := v.console.Operations.Domains.Look(v.Context(), v.actor, name, v.console.Look)
	if err != nil {
		return "", nil, err
	}
	if ours {
		if finding.Worst(report.Findings) <= finding.Fault {
			v.leave("DNS of %s was looked at: what is wrong stands below.", report.Domain)
		} else {
			v.leave("DNS of %s was looked at.", report.Domain)
		}
		return "/domains/" + url.PathEscape(report.Domain), nil, nil
	}
	view, err := viewDomain(v, operate.DomainState{Domain: report.Domain, Report: &report}, false)
	return "", view, err
}
