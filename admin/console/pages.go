package console

import (
	"net/http"

	"postern/operate"
)

// page is one page of the console.
type page struct {
	path    string            // of http.ServeMux, such as "/messages/{id}"
	title   key               //
	menu    bool              // it stands in the menu
	under   string            // the path that the menu marks while it is shown; "": its own
	needs   operate.Operation // who may not, does not see it in the menu either
	sheet   string            // of templates, without its ending
	show    func(*visit) (body any, err error)
	actions []action
}

// action is what a form of a page does.
type action struct {
	path  string
	needs operate.Operation
	// do does it and returns where to go on, with a notice left by visit.notice; or a body, with which the page shows
	// a step of its own (a confirmation) in the template sheet. A body that is an otherSheet has a template of its own,
	// one that is an attachment is a file.
	do    func(*visit) (next string, body any, err error)
	sheet string // for the step; "": the page's
	title key
}

// registry lists all pages; those of the menu in its order. To add one: its file with a variable or function of its
// own, a template, its words, and a line here.
func registry() []page {
	return []page{
		nowPage, messagesPage, timelinePage, queuePage, heldPage,
		loginsPage, loginPage, addLoginPage, addDevicePage, importPage, certificateFile,
		learningPage, acceptPage, clientPage, profileFile,
		domainsPage, domainPage, certificatesPage, certificateData,
		statisticsPage, statisticsFile, alertsPage, doctorPage, auditPage, settingsPage,
	}
}

// menuItem is a line of the menu.
type menuItem struct {
	Path, Title string
	Current     bool
	Count       string // of what there is to look after; "": nothing
	CountSays   string // the same in words
}

func (v *visit) menu(p *page) (items []menuItem) {
	current := ""
	if p != nil {
		if current = p.under; current == "" {
			current = p.path
		}
	}
	for _, each := range v.console.pages {
		if each.menu && v.may(each.needs) {
			item := menuItem{Path: each.path, Title: v.t(each.title), Current: each.path == current}
			counted(v, &item)
			items = append(items, item)
		}
	}
	for _, r := range v.console.Also {
		if r.Menu != "" && v.may(*r.Needs) {
			items = append(items, menuItem{Path: r.Path, Title: v.t(key(r.Menu)), Current: r.Path == current})
		}
	}
	return items
}

// showPage answers with a page.
func (v *visit) showPage(p *page) {
	body, err := p.show(v)
	if err != nil {
		v.refuse(err)
		return
	}
	if file, is := body.(attachment); is {
		v.send(file)
		return
	}
	v.render(http.StatusOK, p, p.sheet, v.t(p.title), body)
}

// run does an action.
func (v *visit) run(p *page, a *action) {
	if err := v.ParseForm(); err != nil {
		v.fail(http.StatusBadRequest, v.t("What was sent cannot be read, or is too much at once."))
		return
	}
	next, body, err := a.do(v)
	file, isDownload := body.(*download)
	switch {
	case err != nil:
		v.refuse(err)
	case isDownload:
		if err := file.store(v.w); err != nil {
			v.console.Logger.Warn("a download of the console was cut off", "path", v.URL.Path, "error", err)
		}
	case body != nil:
		v.showStep(p, a, body)
	default:
		v.redirect(next)
	}
}

// otherSheet is a body with a template of its own, one of steps.
type otherSheet struct {
	sheet string
	title key
	body  any
}

// showStep answers an action with a body.
func (v *visit) showStep(p *page, a *action, body any) {
	switch own := body.(type) {
	case attachment:
		v.send(own)
	case otherSheet:
		v.render(http.StatusOK, p, own.sheet, v.t(own.title), own.body)
	default:
		sheet, title := p.sheet, p.title
		if a.sheet != "" {
			sheet, title = a.sheet, a.title
		}
		v.render(http.StatusOK, p, sheet, v.t(title), body)
	}
}
