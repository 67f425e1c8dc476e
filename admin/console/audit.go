package console

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/store"
)

// auditPage shows who did what.
var auditPage = page{path: "/audit", title: "Audit", menu: true, needs: operate.SeeAudit, sheet: "audit",
	show: showAudit}

// auditView is the body of the page.
type auditView struct {
	Actor      string
	Operations []choice
	From, To   string // days
	Rows       []auditRow
	Pager      pager
	Any        bool
}

// auditRowOf is an entry in words.
type auditRow struct {
	store.AuditEntry
	Icon, Word string
	Deed, By   string // what, and in which way
	Problem    string // what went wrong; "" where it was done or refused
}

// auditOn is how many entries a page has.
const auditOn = 100

func showAudit(v *visit) (any, error) {
	q := v.URL.Query()
	view := &auditView{Actor: strings.TrimSpace(plain(maxFilter, q.Get("actor"))), From: day(q.Get("from")),
		To: day(q.Get("to"))}
	ask := store.AuditQuery{Actor: view.Actor, Operation: mail.Cut(q.Get("operation"), maxFilter), Limit: auditOn + 1}
	view.Operations = operationChoices(v, &ask.Operation)
	view.Any = ask.Actor+ask.Operation+view.From+view.To != ""
	ask.Since, _ = time.ParseInLocation(time.DateOnly, view.From, time.Local)
	if until, err := time.ParseInLocation(time.DateOnly, view.To, time.Local); err == nil {
		ask.Until = until.AddDate(0, 0, 1) // that day is in it
	}
	ask.Before, _ = strconv.ParseInt(q.Get("after"), 10, 64)
	entries, err := v.console.Operations.Audit.List(v.Context(), v.actor, ask)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(entries) > auditOn {
		entries = entries[:auditOn]
		next = strconv.FormatInt(entries[auditOn-1].N, 10)
	}
	for _, e := range entries {
		view.Rows = append(view.Rows, auditRowOf(v, e))
	}
	view.Pager = v.paged("after", next)
	return view, nil
}

func auditRowOf(v *visit, e store.AuditEntry) auditRow {
	r := auditRow{AuditEntry: e, Deed: v.deed(e.Operation), By: plain(40, e.Channel)}
	switch operate.Channel(e.Channel) {
	case operate.CommandLine:
		r.By = v.t("from the command line")
	case operate.Console:
		r.By = v.t("in the console")
	case operate.API:
		r.By = v.t("by the API")
	case operate.SelfService:
		r.By = v.t("on the page of app passwords")
	}
	switch e.Outcome {
	case store.AuditDone:
		r.Icon, r.Word = "ok", v.t("done")
	case store.AuditRefused:
		r.Icon, r.Word = "bad", v.t("refused")
	case store.AuditBegun:
		r.Icon, r.Word = "warn", v.t("begun, and its end is not known")
	default:
		r.Icon, r.Word, r.Problem = "warn", v.t("did not work"), plain(300, e.Outcome)
	}
	return r
}

// operationChoices are the operations that are kept in the audit, by name as the command line has them. What is not
// among them is not asked for.
func operationChoices(v *visit, chosen *string) []choice {
	names := []string{}
	for _, op := range operate.All {
		if op.Audit {
			names = append(names, op.Name)
		}
	}
	slices.Sort(names)
	if !slices.Contains(names, *chosen) {
		*chosen = ""
	}
	all := []choice{{"", v.t("everything"), *chosen == ""}}
	for _, name := range names {
		all = append(all, choice{name, v.deed(name), name == *chosen})
	}
	slices.SortStableFunc(all[1:], func(a, b choice) int { return strings.Compare(a.Label, b.Label) })
	return all
}

// day returns what is a day, "" for anything else.
func day(text string) string {
	if _, err := time.Parse(time.DateOnly, text); err != nil {
		return ""
	}
	return text
}
