package door

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"postern/admin/access"
	"postern/internal/testkit/chromium"
	"postern/operate"
)

// says expects a text on the page.
func says(t *testing.T, b *chromium.Browser, want string) {
	t.Helper()
	if got := b.Text("main"); !strings.Contains(got, want) {
		t.Errorf("want %q on the page:\n%s", want, got)
	}
}

// where expects the path of the page.
func where(t *testing.T, b *chromium.Browser, want string) {
	t.Helper()
	if got := chromium.Get(b, chromedp.Evaluate[string]("location.pathname")); got != want {
		t.Fatalf("the browser is at %s, want %s:\n%s", got, want, b.Text("main"))
	}
}

// fill types into the field of a form with a name.
func fill(b *chromium.Browser, fields ...string) {
	for i := 0; i+1 < len(fields); i += 2 {
		b.Type(`form:not([data-ceremony]) [name="`+fields[i]+`"]`, fields[i+1])
	}
}

func press(b *chromium.Browser, selector string) { b.Leads(chromedp.Click(selector)) }

const send = "form:not([data-ceremony]) button.primary"

// TestFirstLink: from the link that somebody was sent to the console, out, and in again; every page on the way is
// looked at.
func TestFirstLink(t *testing.T) {
	r := newRig(t)
	path := r.link("anna", operate.Admin)
	secret := r.secretOf(path)
	b := chromium.Start(t, r.base, "en")
	b.Open("/")
	where(t, b, "/login")
	b.LookAround("login")
	b.Open(path)
	b.LookAround("invite")
	if shown := strings.ReplaceAll(b.Text("code.key"), " ", ""); shown != secret {
		t.Errorf("the key is %s, want %s", shown, secret)
	}
	fill(b, "password", password, "repeat", password, "code", "000000")
	press(b, send)
	says(t, b, "The code does not fit.")
	b.Problems() // 422
	b.LookAround("invite-wrong")
	says(t, b, "Your password is chosen")
	fill(b, "code", r.code(secret))
	press(b, send)
	where(t, b, "/")
	says(t, b, "You are signed in.")
	b.Look("light", 1440, 900)
	b.Accessible("first page")
	press(b, ".side .who form button")
	where(t, b, "/login")
	says(t, b, "You are signed out.")
	b.Open(path)
	says(t, b, "This link was used already.")
	b.Problems() // 410
	b.LookAround("link-used")
	r.pass(time.Minute)
	b.Open("/people")
	where(t, b, "/login")
	fill(b, "name", "anna", "password", password, "code", "123456")
	press(b, send)
	says(t, b, "The name, the password or the code is wrong.")
	b.Problems() // 403
	b.LookAround("login-wrong")
	fill(b, "password", password, "code", r.code(secret))
	press(b, send)
	where(t, b, "/people")
	says(t, b, "anna")
}

// TestPeopleAndTokensInTheBrowser: what an admin does on the two pages, with the second factor again in between.
func TestPeopleAndTokensInTheBrowser(t *testing.T) {
	r := newRig(t)
	b := chromium.Start(t, r.base, "en")
	path := r.link("anna", operate.Admin)
	secret := r.secretOf(path)
	b.Open(path)
	fill(b, "password", password, "repeat", password, "code", r.code(secret))
	press(b, send)
	b.Look("light", 1440, 900)
	r.pass(access.StrongFor + time.Minute)
	b.Open("/people")
	press(b, `a[href="/people/invite"]`)
	where(t, b, "/step-up")
	b.LookAround("step-up")
	fill(b, "code", r.code(secret))
	press(b, send)
	where(t, b, "/people/invite")
	b.LookAround("people-invite")
	fill(b, "name", "bert@example.com")
	chromium.Get(b, chromedp.Click(`input[value="helpdesk"]`))
	press(b, send)
	says(t, b, "/invite/")
	b.LookAround("people-link")
	press(b, "main a.button")
	where(t, b, "/people")
	says(t, b, "bert@example.com")
	b.LookAround("people")
	press(b, `a[href="/people/change?name=bert%40example.com"]`)
	b.LookAround("person")
	press(b, "button.danger")
	says(t, b, "Remove bert@example.com?")
	b.Accessible("confirmation")
	press(b, "button.danger")
	says(t, b, "bert@example.com is removed.")
	b.Open("/tokens")
	b.Accessible("no tokens")
	press(b, "main a.button")
	b.LookAround("token-add")
	fill(b, "name", "monitoring", "networks", "192.0.2.0/24, 2001:db8::1")
	press(b, send)
	says(t, b, access.TokenPrefix)
	b.LookAround("token-shown")
	press(b, "main a.button")
	says(t, b, "192.0.2.0/24, 2001:db8::1/128")
	b.LookAround("tokens")
	press(b, "main table button")
	press(b, "button.danger")
	says(t, b, "The token monitoring is revoked.")
}

// TestPasskey: a link, password, a wrong code and a passkey instead, out, in with the passkey, and the second factor
// again with it.
func TestPasskey(t *testing.T) {
	r := newRig(t)
	b := chromium.Start(t, r.base, "de")
	authenticator(b)
	b.Look("light", 1440, 900)
	b.Open(r.link("anna", operate.Admin))
	b.Accessible("invitation")
	fill(b, "password", password, "repeat", password, "code", "000000")
	press(b, send)
	b.Problems() // 422; the password is chosen now
	press(b, "form[data-ceremony] button")
	where(t, b, "/")
	press(b, ".side .who form button")
	where(t, b, "/login")
	b.Open("/tokens/add")
	fill(b, "name", "anna")
	press(b, "form[data-ceremony] button")
	where(t, b, "/tokens/add") // which a passkey is strong enough for
	r.pass(access.StrongFor + time.Minute)
	b.Open("/people/invite")
	where(t, b, "/step-up")
	b.LookAround("step-up-passkey")
	press(b, "form[data-ceremony] button")
	where(t, b, "/people/invite")

	// Somebody who cancels, or has no passkey, is told so on the page.
	press(b, ".side .who form button")
	fill(b, "name", "nobody@example.com")
	chromium.Get(b, chromedp.Click("form[data-ceremony] button"))
	chromium.Get(b, chromedp.WaitVisible("form[data-ceremony] [role=alert]"))
	says(t, b, "Der Passkey wurde nicht benutzt")
	b.Accessible("cancelled")
	b.Shoot("passkey-cancelled")
}

// TestKeyboard: from the login page to the console with the keyboard alone.
func TestKeyboard(t *testing.T) {
	r := newRig(t)
	b := chromium.Start(t, r.base, "en")
	path := r.link("anna", operate.Admin)
	secret := r.secretOf(path)
	b.Look("dark", 1440, 900)
	b.Open(path)
	b.AutoFocused("input:password")
	chromium.Get(b, chromedp.KeyEvent(password))
	b.Tab("input:repeat")
	chromium.Get(b, chromedp.KeyEvent(password))
	b.Tab("input:code")
	chromium.Get(b, chromedp.KeyEvent(r.code(secret)))
	b.Tab("button:Finish and sign in")
	b.Leads(chromedp.KeyEvent("\r"))
	where(t, b, "/")
	b.Tab("a:/people")
	b.Leads(chromedp.KeyEvent("\r"))
	b.Tab("a:/people/invite")
	b.Leads(chromedp.KeyEvent("\r"))
	b.AutoFocused("input:name")
	chromium.Get(b, chromedp.KeyEvent("bert"))
	b.Tab("input:role")
	chromium.Get(b, chromedp.KeyEvent(" "))
	b.Tab("button:Make the link")
	b.Leads(chromedp.KeyEvent("\r"))
	says(t, b, "/invite/")
	b.Tab("button:Sign out")
	b.Leads(chromedp.KeyEvent("\r"))
	where(t, b, "/login")
}

// TestWithoutJavaScript: the whole way in without any script; passkeys are not offered then.
func TestWithoutJavaScript(t *testing.T) {
	r := newRig(t)
	b := chromium.Start(t, r.base, "en")
	b.Look("light", 1440, 900)
	path := r.link("anna", operate.Viewer)
	secret := r.secretOf(path)
	chromium.Call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.Open(path)
	fill(b, "password", password, "repeat", password, "code", r.code(secret))
	chromium.Get(b, chromedp.Click(send))
	chromium.Get(b, chromedp.WaitVisible(".side .who"))
	chromium.Get(b, chromedp.Click(".side .who button"))
	chromium.Get(b, chromedp.WaitVisible("#name"))
	if n := len(chromium.Get(b, chromedp.Nodes("form[data-ceremony]:not([hidden])", chromedp.AtLeast(0)))); n > 0 {
		t.Error("a passkey is offered without JavaScript")
	}
	r.pass(time.Minute)
	fill(b, "name", "anna", "password", password, "code", r.code(secret))
	chromium.Get(b, chromedp.Click(send))
	chromium.Get(b, chromedp.WaitVisible(".side .who"))
}

// TestAccountInTheBrowser: from the header to one's own account; a second passkey, its name, in with it, and out of
// use; the last way in stays.
func TestAccountInTheBrowser(t *testing.T) {
	r := newRig(t)
	b := chromium.Start(t, r.base, "en")
	first := authenticator(b)
	b.Look("light", 1440, 900)
	b.Open(r.link("anna", operate.Viewer))
	fill(b, "password", password, "repeat", password)
	press(b, "form[data-ceremony] button")
	press(b, ".side .who a.name")
	where(t, b, "/account")
	says(t, b, "Passkey 1")
	b.LookAround("account")
	press(b, `a[href^="/account/passkey/remove"]`)
	says(t, b, "Remove the passkey Passkey 1?")
	press(b, "button.danger")
	says(t, b, "This is your last way in.")
	b.Problems() // 409

	// Another device: the first one may not make two.
	chromium.Call(b, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{
		AuthenticatorID: first})
	authenticator(b)
	b.Open("/account/passkey")
	b.LookAround("account-passkey")
	b.Type(`[name="label"]`, "Phone")
	press(b, "form[data-ceremony] button")
	where(t, b, "/account")
	says(t, b, "The passkey is added.")
	says(t, b, "Phone")
	chromium.Get(b, chromedp.Click("tbody tr:nth-child(2) summary"))
	b.LookAround("account-passkeys")
	b.Look("light", 1440, 900)
	chromium.Get(b, chromedp.SetValue(`tbody tr:nth-child(2) [name="label"]`, "Anna's phone"))
	press(b, "tbody tr:nth-child(2) .rename button")
	says(t, b, "Anna's phone")

	press(b, ".side .who form button")
	fill(b, "name", "anna")
	press(b, "form[data-ceremony] button")
	press(b, ".side .who a.name")
	press(b, `tbody tr:nth-child(1) a[href^="/account/passkey/remove"]`)
	press(b, "button.danger")
	says(t, b, "The passkey is removed.")
	if text := b.Text("main"); strings.Contains(text, "Passkey 1") || !strings.Contains(text, "Anna's phone") {
		t.Errorf("the page says:\n%s", text)
	}
	b.Open("/account/app")
	b.LookAround("account-app")
	b.Open("/account/password")
	b.LookAround("account-password")
}

// authenticator gives the browser a device that makes passkeys, and says yes by itself.
func authenticator(b *chromium.Browser) webauthn.AuthenticatorID {
	chromium.Call(b, webauthn.Enable, webauthn.EnableParams{})
	return chromium.Call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{Protocol: webauthn.AuthenticatorProtocolCtap2,
			Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
			IsUserVerified: true, AutomaticPresenceSimulation: true}}).AuthenticatorID
}
