// Package chromium drives Chromium from Debian on pages that a test serves on loopback, and judges what it shows: by
// axe-core, by what the browser complains of, and by pictures for a person to look at.
//
// Failure semantics: whatever does not work fails the test; without Chromium it is skipped as testkit.Need says. The
// browser ends with the test. It resolves no name but localhost and talks to nobody else.
package chromium

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"postern/internal/testkit"
)

//go:embed axe-4.14.1.min.js
var axe string

// Browser is Chromium with one page open.
type Browser struct {
	Base string // scheme, host and port of what is looked at

	t   testing.TB
	ctx context.Context

	mu       sync.Mutex // guards what follows
	problems []string   // what the browser complains of
}

// quiet are flags that keep Chromium from talking to anybody but us.
var quiet = []chromedp.ExecAllocatorOption{chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
	chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
	chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
	chromedp.Flag("disable-sync", true), chromedp.Flag("disable-extensions", true), chromedp.Flag("no-pings", true),
	chromedp.Flag("disable-default-apps", true), chromedp.Flag("disable-domain-reliability", true),
	chromedp.Flag("disable-client-side-phishing-detection", true), chromedp.Flag("metrics-recording-only", true),
	chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
	chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider"),
	chromedp.WSURLReadTimeout(2 * time.Minute)}

// Start starts Chromium in a language, such as "en".
func Start(t testing.TB, base, language string) *Browser {
	t.Helper()
	b := &Browser{Base: base, t: t}
	options := append(quiet[:len(quiet):len(quiet)], chromedp.ExecPath(testkit.Need(t, "chromium")),
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("accept-lang", language), chromedp.Flag("lang", language))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	b.ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(b.ctx); err != nil {
			t.Error(err)
		}
		cancel()
	})
	b.must(chromedp.Do(b.ctx)) // starts it
	b.must(chromedp.Listen(b.ctx, b.note))
	_, err := chromedp.Call(b.ctx, cdplog.Enable, cdp.Empty{})
	b.must(err)
	return b
}

// note keeps what the browser complains of.
func (b *Browser) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *cdplog.EventEntryAdded:
		b.problems = append(b.problems, fmt.Sprint(ev.Entry.Level, ": ", ev.Entry.Text, " ", ev.Entry.URL))
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, fmt.Sprint(ev.ExceptionDetails))
	}
}

func (b *Browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// patience is how long anything in the browser may take.
const patience = time.Minute

// Get runs one thing in the browser.
func Get[T any](b *Browser, what chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, what)
	b.must(err)
	return value
}

// Call sends a command of the DevTools protocol.
func Call[P, R any](b *Browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	b.must(err)
	return result
}

// Open goes to a path of Base.
func (b *Browser) Open(path string) {
	b.t.Helper()
	Get(b, chromedp.Navigate(b.Base+path))
}

// Leads does what leads to another page, and waits for it.
func (b *Browser) Leads(trigger chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	Get(b, chromedp.WaitEvent(page.LoadEventFired, nil, trigger))
}

// Context is that of the page, for what this package has no method for.
func (b *Browser) Context() context.Context { return b.ctx }

// Type types into what a CSS selector finds, behind what stands there, and wants all of it to arrive: a browser that is
// busy may lose a key, once.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	before := Get(b, chromedp.Value(selector))
	for range 2 {
		Get(b, chromedp.SendKeys(selector, text))
		got := Get(b, chromedp.Value(selector))
		if got == before+text {
			return
		}
		b.t.Logf("%q was typed behind %q, and %s has %q", text, before, selector, got)
		Get(b, chromedp.SetValue(selector, before))
	}
	b.t.Fatalf("%s does not take what is typed", selector)
}

// Text is what stands in what a CSS selector finds.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	return Get(b, chromedp.Text(selector))
}

// Look sets the theme ("light", "dark") and the size of the window in pixels.
func (b *Browser) Look(theme string, width, height int64) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme},
			{Name: "prefers-reduced-motion", Value: "reduce"}}})
	b.must(err)
	Get(b, chromedp.EmulateViewport(width, height))
}

// Shoot keeps a picture of the page where POSTERN_SCREENSHOTS says, for a person to look at.
func (b *Browser) Shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("POSTERN_SCREENSHOTS")
	if dir == "" {
		return
	}
	png := Get(b, chromedp.FullScreenshot(100))
	b.must(os.MkdirAll(dir, 0o755))
	b.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// LookAround judges and shoots the page in both themes on a telephone, a tablet and a screen.
func (b *Browser) LookAround(name string) {
	b.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{320, 768, 1440} {
			b.Look(theme, width, 900)
			what := fmt.Sprintf("%s-%s-%d", name, theme, width)
			b.Accessible(what)
			b.Shoot(what)
		}
	}
}

// violation is what axe-core finds.
type violation struct {
	ID, Help string
	Nodes    []struct {
		HTML           string
		FailureSummary string
	}
}

// Accessible fails for whatever axe-core finds on the page, for what the browser complained of, and where the page is
// wider than the window.
func (b *Browser) Accessible(what string) {
	b.t.Helper()
	if !Get(b, chromedp.Evaluate[bool]("typeof axe !== 'undefined'")) {
		Get(b, chromedp.Evaluate[bool](axe+";true"))
	}
	result := Get(b, chromedp.Evaluate[string](
		`axe.run(document, {resultTypes: ["violations"], rules: {"target-size": {enabled: true}}})
			.then(r => JSON.stringify(r.violations))`,
		chromedp.EvalAwaitPromise))
	var found []violation
	b.must(json.Unmarshal([]byte(result), &found))
	for _, v := range found {
		for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
			b.t.Errorf("%s: %s (%s): %s\n%s", what, v.ID, v.Help, n.HTML, n.FailureSummary)
		}
	}
	if Get(b, chromedp.Evaluate[bool](
		"document.documentElement.scrollWidth > document.documentElement.clientWidth")) {
		b.t.Errorf("%s: the page is wider than the window", what)
	}
	for _, p := range b.Problems() {
		b.t.Errorf("%s: the browser says: %s", what, p)
	}
}

// Problems returns what the browser complained of since it was last asked, such as an answer that is an error.
func (b *Browser) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	problems := b.problems
	b.problems = nil
	return problems
}

// Place is where the focus is.
type Place struct {
	Name     string // tag and name, or the text of a button
	Outlined bool   // one sees that it is there
}

// Focused returns where the focus is.
func (b *Browser) Focused() Place {
	b.t.Helper()
	return Get(b, chromedp.Evaluate[Place](`(() => {
		const e = document.activeElement;
		if (!e || e === document.body) return {Name: "", Outlined: false};
		const tag = e.tagName.toLowerCase(), style = getComputedStyle(e);
		const own = tag === "a" ? e.getAttribute("href") : tag === "button" ? e.textContent.trim() : e.name;
		return {Name: tag + ":" + own,
			Outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2};
	})()`))
}

// AutoFocused waits until the focus is at a place by itself, a moment after the page is there.
func (b *Browser) AutoFocused(at string) {
	b.t.Helper()
	for end := time.Now().Add(patience); b.Focused().Name != at; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("the focus is on %q, want %s", b.Focused().Name, at)
		}
	}
}

// Tab presses Tab until the focus is at a place, which must be reached within 60 steps, each of which shows.
func (b *Browser) Tab(to string) {
	b.t.Helper()
	for range 60 {
		Get(b, chromedp.KeyEvent("\t"))
		where := b.Focused()
		if where.Name != "" && !where.Outlined {
			b.t.Errorf("the focus is not seen on %s", where.Name)
		}
		if where.Name == to {
			return
		}
	}
	b.t.Fatalf("Tab does not lead to %s", to)
}
