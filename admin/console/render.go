package console

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"slices"
	"time"

	"postern/operate"
)

//go:embed templates/*.html
var templateFiles embed.FS

// sheets are the templates of one language, by name.
type sheets map[string]*template.Template

// steps are templates of steps within a page, such as its confirmations, and of the error page.
var steps = []string{"error", "confirm", "card", "imported", "certificates"}

// roomSheets are those of the routes of packages door and selfservice.
var roomSheets = []string{"enter", "invite", "lost", "factor", "people", "person", "asked", "tokens",
	"newtoken", "once", "account", "ownpassword", "ownapp", "ownpasskey", "myenter", "mypasswords", "mynew",
	"mycard"}

// loadSheets parses the templates once for each language, since their functions speak it.
func loadSheets(c *console, pages []page) map[string]*sheets {
	all := map[string]*sheets{}
	for _, w := range speakers {
		frame := template.Must(template.New("layout.html").Funcs(c.functions(w)).ParseFS(templateFiles,
			"templates/layout.html", "templates/parts.html", "templates/findings.html", "templates/doorparts.html",
			"templates/sheet.html"))
		s := sheets{}
		add := func(name string) {
			if s[name] == nil {
				s[name] = template.Must(template.Must(frame.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
			}
		}
		for _, p := range pages {
			add(p.sheet)
			for _, a := range p.actions {
				if a.sheet != "" {
					add(a.sheet)
				}
			}
		}
		for _, name := range slices.Concat(steps, roomSheets) {
			add(name)
		}
		all[w.lang] = &s
	}
	return all
}

// functions are those that templates may call.
func (c *console) functions(w *words) template.FuncMap {
	return template.FuncMap{
		"t":         w.t,
		"short":     func(t time.Time) string { return w.short(t, c.Now()) },
		"ago":       func(t time.Time) string { return w.span(c.Now().Sub(t)) },
		"until":     func(t time.Time) string { return w.span(t.Sub(c.Now())) },
		"whole":     w.whole,
		"day":       w.day,
		"stamp":     stamp,
		"minute":    func(t time.Time) string { return t.Local().Format("15:04") },
		"span":      w.span,
		"size":      w.size,
		"num":       w.num,
		"plain":     plain,
		"said":      w.said,
		"history":   w.history,
		"saidlines": func(n int, text string) Said { return w.said(plainLines(n, text)) },
		"asset":     c.assets.url,
		"home":      func() string { return c.Home },
		"pair":      func(a, b any) [2]any { return [2]any{a, b} },
	}
}

// sheet is what the layout shows.
type sheet struct {
	Lang, Title, Site string
	Menu              []menuItem
	Actor             operate.Actor
	Known             bool
	SignOut, Account  string
	AtAccount         bool // the page is about it
	Notices           []noticeLine
	Style, Script     string
	Icon              string
	Body              any
}

// titled is a body that knows a better title of its page than the registry.
type titled interface{ Title() string }

// render answers with a template. p is the page that the menu marks, nil for none.
func (v *visit) render(status int, p *page, name, title string, body any) {
	c := v.console
	v.takeNotice()
	if own, ok := body.(titled); ok {
		title = own.Title()
	}
	s := sheet{Lang: v.lang, Title: title, Menu: v.menu(p), Actor: v.actor, Known: v.known, SignOut: c.SignOut,
		Account: c.Account, AtAccount: p != nil && c.Account != "" && p.under == c.Account,
		Notices: v.notices, Style: c.assets.url(styleFile), Script: c.assets.url(scriptFile),
		Icon: c.assets.url(iconFile), Body: body}
	if c.Site != nil {
		s.Site = c.Site()
	}
	var b bytes.Buffer
	if err := (*c.sheets[v.lang])[name].Execute(&b, s); err != nil {
		c.Logger.Error("a page of the console cannot be rendered", "path", v.URL.Path, "error", err)
		http.Error(v.w, v.t("This page cannot be shown. The relay's log says why; mail is not affected."),
			http.StatusInternalServerError)
		return
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.lang)
	v.w.WriteHeader(status)
	_, _ = v.w.Write(b.Bytes()) // whoever asked has left
}
