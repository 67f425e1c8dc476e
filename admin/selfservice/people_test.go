package selfservice

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"postern/internal/testkit/chromium"
)

// TestByKeyboardInGerman: without a mouse, without JavaScript, in German, and on a telephone's 320 pixels.
func TestByKeyboardInGerman(t *testing.T) {
	r := newRig(t, "")
	b := chromium.Start(t, r.base, "de")
	press := func(key string) { chromium.Get(b, chromedp.KeyEvent(key)) }
	enter := func() { b.Leads(chromedp.KeyEvent("\r")) }
	b.Look("light", 320, 800)
	b.Open("/")
	b.Accessible("login")
	b.Shoot("me-de-login")
	chromium.Call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.Open("/")
	b.Tab("input:login")
	press("anna@example.com")
	press("\t")
	press(password)
	enter()
	says(t, b, "Es gibt noch keines.")
	b.Tab("a:" + newPath)
	enter()
	b.Tab("input:name")
	press("Scanner im Flur")
	b.Tab("button:Passwort erzeugen")
	enter()
	says(t, b, "Das Passwort wird nur dieses eine Mal gezeigt")
	b.Tab("a:" + home)
	enter()
	says(t, b, "Ihre Passwörter")
	revoke := revokePath + "?id=" + r.idOf("anna@example.com", "Scanner im Flur")
	b.Tab("a:" + revoke)
	enter()
	says(t, b, "Das Passwort für Scanner im Flur widerrufen?")
	b.Tab("button:Widerrufen")
	enter()
	says(t, b, "ist widerrufen.")
	chromium.Call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
	b.Problems() // where Tab was faster than autofocus
	for name, path := range map[string]string{"empty": home, "new": newPath} {
		b.Open(path)
		b.Accessible(name)
		b.Shoot("me-de-" + name)
		if text := b.Text("main"); strings.Contains(text, "password") {
			t.Errorf("%s is not German:\n%s", name, text)
		}
	}
}
