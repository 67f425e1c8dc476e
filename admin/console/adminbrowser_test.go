package console

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"postern/operate"
)

// administered is a relay with all that the pages of this file show.
func administered(t *testing.T, rows int) *rig {
	t.Helper()
	r := newRig(t, office(t))
	r.healthy()
	r.accounts(rows)
	r.alerts(rows)
	r.audits(rows)
	r.counted(rows)
	if rows > 1 {
		_, _, err := r.operations.Domains.Look(t.Context(), operate.Actor{Channel: operate.CommandLine}, "example.com",
			r.look)
		r.must(err)
		_, err = r.operations.Keys.Add(t.Context(), operate.Actor{Channel: operate.CommandLine}, "example.com", "",
			[]string{"rsa-2048"})
		r.must(err)
		_, err = r.operations.Doctor.Examine(t.Context(), operate.Actor{Channel: operate.CommandLine})
		r.must(err)
	}
	return r
}

// adminPages are the pages of this file.
func adminPages() map[string]string {
	return map[string]string{"logins": "/logins", "login": "/logins/scanner-00001",
		"locked":    "/logins/person00003@example.com",
		"new-login": "/logins/add/login", "new-device": "/logins/add/device", "import": "/logins/add/table",
		"domains": "/domains", "domain": "/domains/example.com", "alerts": "/alerts", "doctor": "/doctor",
		"audit":      "/audit",
		"statistics": "/statistics?by=login",
		"settings":   "/settings"}
}

// TestAccessibilityOfAdministration: no page has a violation of axe-core's rules, on a telephone, a tablet and a
// screen.
func TestAccessibilityOfAdministration(t *testing.T) {
	b := browse(t, administered(t, 14), "en")
	for name, path := range adminPages() {
		b.open(path)
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int64{320, 768, 1440} {
				if theme == "dark" && width == 768 {
					continue
				}
				b.look(theme, width, 900)
				what := fmt.Sprintf("%s-%s-%d", name, theme, width)
				b.accessible(what)
				b.shoot(what)
			}
		}
	}
	b.look("light", 2560, 1300)
	for _, name := range []string{"logins", "domain", "statistics"} {
		b.open(adminPages()[name])
		b.accessible(name + "-light-2560")
		b.shoot(name + "-light-2560")
	}
}

// TestFewRowsOfAdministration: each page with no row and with one, in German.
func TestFewRowsOfAdministration(t *testing.T) {
	for rows := range 2 {
		b := browse(t, administered(t, rows), "de")
		b.look("light", 1024, 800)
		for _, path := range []string{"/logins", "/domains", "/alerts", "/doctor", "/audit", "/statistics",
			"/settings?q=nothing-like-this"} {
			b.open(path)
			what := fmt.Sprintf("%s-de-%d-rows", strings.Trim(strings.Split(path, "?")[0], "/"), rows)
			b.accessible(what)
			b.shoot(what)
		}
	}
}

// TestDeviceInTheBrowser: from the button to the card, with the keyboard's Enter, with and without JavaScript.
func TestDeviceInTheBrowser(t *testing.T) {
	r := administered(t, 2)
	b := browse(t, r, "en")
	for i, theme := range []string{"light", "dark"} {
		b.look(theme, 900, 900)
		name := fmt.Sprint("scanner-of-", theme)
		b.open("/logins")
		b.leads(chromedp.Click(`a[href="/logins/add/device"]`))
		get(b, chromedp.SendKeys(`input[name="login"]`, name))
		get(b, chromedp.SendKeys(`textarea[name="senders"]`, "no address at all!"))
		b.leads(chromedp.Click(`form.form button.primary`))
		get(b, chromedp.WaitVisible(".wrong"))
		b.accessible("wrong device")
		b.shoot("wrong-" + theme)
		if got := get(b, chromedp.Value(`input[name="login"]`)); got != name {
			t.Errorf("what was typed is gone: %q", got)
		}
		get(b, chromedp.SetValue(`textarea[name="senders"]`, "scans@example.com"))
		b.leads(chromedp.Click(`form.form button.primary`))
		get(b, chromedp.WaitVisible(".sheet .secret"))
		b.accessible("card")
		b.shoot("card-" + theme)
		u, err := r.store.User(t.Context(), name)
		if r.must(err); !u.Device || u.Senders[0] != "scans@example.com" {
			t.Errorf("%+v", u)
		}
		if strings.Contains(get(b, chromedp.Location()), get(b, chromedp.Text(".sheet .secret"))) {
			t.Error("the password is in the address")
		}
		if i == 0 { // and once more without JavaScript
			b.print("card-print")
			_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
				emulation.SetScriptExecutionDisabledParams{Value: true})
			b.must(err)
			b.open("/domains/" + url.PathEscape("example.com"))
			b.leads(chromedp.Click(`form[action="/domains/act/look"] button`))
			get(b, chromedp.WaitVisible(".notice"))
			_, err = chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
				emulation.SetScriptExecutionDisabledParams{Value: false})
			b.must(err)
		}
	}
}

// print keeps a picture of the page as it is printed.
func (b *browser) print(name string) {
	b.t.Helper()
	if os.Getenv("POSTERN_SCREENSHOTS") == "" {
		return
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
	b.must(err)
	b.shoot(name)
	_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	b.must(err)
}
