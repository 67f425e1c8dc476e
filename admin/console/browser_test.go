package console

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"postern/admin/access"
	"postern/internal/testkit/chromium"
	"postern/operate"
	"postern/relay/status"
)

// browser is Chromium on a console.
type browser struct {
	*rig
	*chromium.Browser
	ctx   context.Context
	who   atomic.Pointer[operate.Actor]
	polls atomic.Int64 // requests that a page made by itself
}

// browse starts Chromium on the console of a rig, as an admin.
func browse(t *testing.T, r *rig, language string) *browser {
	t.Helper()
	b := &browser{rig: r}
	b.who.Store(person(operate.Admin))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get(access.PollHeader) != "" {
			b.polls.Add(1)
		}
		if who := b.who.Load(); who != nil {
			req = req.WithContext(operate.WithActor(req.Context(), *who))
		}
		r.server.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	b.Browser = chromium.Start(t, server.URL, language)
	b.ctx = b.Context()
	return b
}

// get runs one thing in the browser.
func get[T any](b *browser, what chromedp.Action[T]) T {
	b.rig.t.Helper()
	return chromium.Get(b.Browser, what)
}

func (b *browser) open(path string)                             { b.Open(path) }
func (b *browser) look(theme string, width, height int64)       { b.Look(theme, width, height) }
func (b *browser) shoot(name string)                            { b.Shoot(name) }
func (b *browser) accessible(what string)                       { b.Accessible(what) }
func (b *browser) leads(trigger chromedp.Action[chromedp.Void]) { b.Leads(trigger) }

// pagesToLook are the pages of a relay that was filled.
func pagesToLook() map[string]string {
	return map[string]string{"now": "/", "messages": "/messages", "queue": "/queue", "held": "/held",
		"message": "/messages/3m5x0g9k2a000001", "delivered": "/messages/4a1x0g9k2a000000", "missing": "/messages/none"}
}

// TestAccessibility: no page has a violation of axe-core's rules in either theme, on a telephone,
// a tablet and a screen.
func TestAccessibility(t *testing.T) {
	r := newRig(t)
	r.troubled()
	r.fill(20)
	b := browse(t, r, "en")
	for name, path := range pagesToLook() {
		b.open(path)
		if name == "missing" {
			b.Problems() // 404
		}
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int64{320, 768, 1440} {
				b.look(theme, width, 900)
				what := fmt.Sprintf("%s-%s-%d", name, theme, width)
				b.accessible(what)
				b.shoot(what)
			}
		}
	}
	b.look("light", 320, 900)
	b.open("/queue")
	get(b, chromedp.Click(".drawer summary"))
	get(b, chromedp.WaitVisible(".drawer nav"))
	b.accessible("menu-light-320")
	b.shoot("menu-light-320")
	b.look("light", 2560, 1300)
	b.open("/")
	b.shoot("now-light-2560")
	b.open("/queue")
	b.shoot("queue-light-2560")
}

// TestFewRows: each page with no row and with one.
func TestFewRows(t *testing.T) {
	r := newRig(t)
	r.healthy()
	b := browse(t, r, "de")
	b.look("light", 1024, 800)
	for _, rows := range []int{0, 1} {
		if rows == 1 {
			r.fill(1)
			r.now = r.now.Add(time.Minute) // what is remembered is old
		}
		for name, path := range map[string]string{"now": "/", "messages": "/messages", "queue": "/queue",
			"held": "/held"} {
			b.open(path)
			what := fmt.Sprintf("%s-de-%d-rows", name, rows)
			b.accessible(what)
			b.shoot(what)
			if got := get(b, chromedp.Evaluate[string]("document.documentElement.lang")); got != "de" {
				t.Errorf("%s: the language is %v", what, got)
			}
		}
	}
}

// TestActionsInTheBrowser: what is clicked on the page Queue happens in the store.
func TestActionsInTheBrowser(t *testing.T) {
	r := newRig(t)
	r.healthy()
	for n := range 5 {
		r.add(r.message(n, time.Hour))
	}
	b := browse(t, r, "en")
	b.look("light", 1280, 900)
	choose := func(n int) { get(b, chromedp.Click(`input[value="`+id(n)+`"]`)) }
	press := func(verb string) { b.leads(chromedp.Click(`button[formaction="/queue/` + verb + `"]`)) }
	confirm := func() { b.leads(chromedp.Click(".confirm button")) }
	says := func(want string) {
		t.Helper()
		if got := get(b, chromedp.Text("main")); !strings.Contains(got, want) {
			t.Errorf("want %q on the page:\n%s", want, got)
		}
	}
	b.open("/queue")
	choose(0)
	choose(1)
	press("hold")
	says("Hold 2 messages?")
	b.accessible("confirmation")
	b.shoot("confirm-light-1280")
	get(b, chromedp.SendKeys(`input[name="reason"]`, "waits for the boss"))
	confirm()
	says("2 messages are held.")
	if m, err := r.store.Get(t.Context(), id(1)); err != nil || !m.Held || m.HoldReason != "waits for the boss" {
		t.Errorf("%+v, %v", m, err)
	}
	b.open("/held")
	get(b, chromedp.Click(`.acts input[name="all"]`))
	press("release")
	says("Release 2 messages?")
	confirm()
	says("Nothing is held.")
	b.open("/messages/" + id(2))
	press("header")
	says("Subject: x")
	b.accessible("header")
	b.shoot("header-light-1280")
	b.open("/messages/" + id(2))
	press("delete")
	says("Delete 1 message?")
	confirm()
	if _, err := r.store.Get(t.Context(), id(2)); err == nil {
		t.Error("it is still there")
	}
	b.open("/queue")
	choose(3)
	press("retry") // one, without a confirmation
	says("1 message is tried now.")
	get(b, chromedp.Click(`.acts input[name="all"]`))
	press("bounce")
	says("Return 4 messages to their senders?")
	confirm()
	if m, err := r.store.Get(t.Context(), id(4)); err != nil || !m.Bounce {
		t.Errorf("%+v, %v", m, err)
	}
	b.accessible("the queue afterwards")
}

// TestKeyboardAlone: with the Tab key one reaches all there is, sees where one is, and acts.
func TestKeyboardAlone(t *testing.T) {
	r := newRig(t)
	r.healthy()
	r.add(r.message(0, time.Hour), r.message(1, time.Hour))
	b := browse(t, r, "en")
	b.look("dark", 1280, 900)
	b.open("/queue")
	press := func(key string) { get(b, chromedp.KeyEvent(key)) }
	press("\t")
	if where := b.focused(); where.Text != "Skip to the content" || where.Top < 0 {
		t.Errorf("the first Tab leads to %+v", where)
	}
	press("\r")
	press("\t")
	if where := b.focused(); !where.Main {
		t.Errorf("behind the link the next Tab leads to %+v", where)
	}
	b.open("/queue")
	reached := map[string]bool{}
	for range 40 {
		press("\t")
		where := b.focused()
		reached[where.Name] = true
		if where.Name != "" && !where.Outlined {
			t.Errorf("the focus is not seen on %+v", where)
		}
	}
	for _, want := range []string{"a:/", "a:/messages", "a:/held", "input:to", "input:login", "button:Show",
		"input:" + id(0),
		"input:" + id(1), "button:Hold", "button:Delete", "a:/messages/" + id(1), "button:Sign out"} {
		if !reached[want] {
			t.Errorf("Tab does not reach %s, but %v", want, reached)
		}
	}
	get(b, chromedp.Evaluate[bool](`document.querySelector('input[value="`+id(0)+`"]').focus(); true`))
	press(" ")
	for b.focused().Name != "button:Delete" {
		press("\t")
	}
	b.leads(chromedp.KeyEvent("\r"))
	for b.focused().Name != "button:Delete" {
		press("\t")
	}
	b.leads(chromedp.KeyEvent("\r"))
	if _, err := r.store.Get(t.Context(), id(0)); err == nil {
		t.Error("the message was not deleted")
	}
}

// place is where the focus is.
type place struct {
	Name, Text     string
	Top            float64
	Main, Outlined bool
}

func (b *browser) focused() place {
	b.t.Helper()
	return get(b, chromedp.Evaluate[place](`(() => {
		const e = document.activeElement;
		if (!e || e === document.body) return {Name: "", Text: "", Top: 0, Main: false, Outlined: false};
		const tag = e.tagName.toLowerCase(), text = e.textContent.trim(), style = getComputedStyle(e);
		const own = tag === "a" ? e.getAttribute("href") : tag === "button" ? text :
			e.type === "checkbox" && e.name === "id" ? e.value : e.name;
		return {Name: tag + ":" + own, Text: text, Top: e.getBoundingClientRect().top,
			Main: !!e.closest("main"), Outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2};
	})()`))
}

// TestNowKeepsItselfFresh: the page changes without being loaded anew, and goes to the login when the session is over.
func TestNowKeepsItselfFresh(t *testing.T) {
	r := newRig(t)
	r.healthy()
	b := browse(t, r, "en")
	b.open("/")
	get(b, chromedp.Evaluate[bool]("document.body.dataset.stays = '1'; true"))
	r.mu.Lock()
	r.healthy() // another report
	r.report.Upstreams[0].State = status.Paused
	r.mu.Unlock()
	poll := chromedp.Evaluate[bool]("htmx.trigger('#live', 'every'); true")
	get(b, poll)
	get(b, chromedp.WaitVisible(".verdict.bad"))
	if !get(b, chromedp.Evaluate[bool]("document.body.dataset.stays === '1'")) || b.polls.Load() != 1 ||
		!strings.HasPrefix(get(b, chromedp.Title()), "No mail can leave.") {
		t.Errorf("the page was loaded anew, its title is old, or %d requests say that nobody asked for them",
			b.polls.Load())
	}
	b.who.Store(nil)
	get(b, chromedp.WaitEvent(cdppage.LoadEventFired, nil, poll))
	if at := get(b, chromedp.Location()); !strings.HasSuffix(at, "/login?next=%2F") {
		t.Errorf("it leads to %s", at)
	}
}

// TestWithoutScript: the forms work the same in a browser that runs no JavaScript, and with it the list of messages is
// exchanged in its place.
func TestWithoutScript(t *testing.T) {
	r := newRig(t)
	r.healthy()
	r.fill(7)
	b := browse(t, r, "en")
	b.open("/messages")
	get(b, chromedp.Evaluate[bool]("document.body.dataset.stays = '1'; true"))
	get(b, chromedp.SendKeys(`input[name="q"]`, "nobody@example.org\r"))
	get(b, chromedp.WaitVisible("#found .empty"))
	if !get(b, chromedp.Evaluate[bool]("document.body.dataset.stays === '1' && location.search.includes('nobody')")) {
		t.Error("the page was loaded anew, or its address does not say what is shown")
	}
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true})
	b.must(err)
	b.open("/messages")
	get(b, chromedp.SendKeys(`input[name="q"]`, "nobody@example.org\r"))
	get(b, chromedp.WaitVisible("#found .empty"))
	b.open("/queue")
	get(b, chromedp.Click(`input[value="`+id(1)+`"]`))
	get(b, chromedp.Click(`button[formaction="/queue/delete"]`))
	get(b, chromedp.WaitVisible(".confirm"))
	get(b, chromedp.Click(".confirm button"))
	get(b, chromedp.WaitVisible(".notice"))
	if _, err := r.store.Get(t.Context(), id(1)); err == nil {
		t.Error("the message was not deleted")
	}
}
