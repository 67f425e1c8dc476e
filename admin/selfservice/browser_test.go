package selfservice

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"postern/internal/testkit/chromium"
	"postern/relay/config"
)

func says(t *testing.T, b *chromium.Browser, want string) {
	t.Helper()
	if got := b.Text("main"); !strings.Contains(got, want) {
		t.Errorf("want %q on the page:\n%s", want, got)
	}
}

// TestInTheBrowser: from the login by the provider to a password, and back; every page on the way is looked at, in both
// themes, on a telephone, a tablet and a screen.
func TestInTheBrowser(t *testing.T) {
	r := newRig(t, "")
	r.change(func(c *config.Config) {
		c.Autoconfig.Domains, c.Autoconfig.Name = []string{"example.net"}, "Example Ltd"
		c.Autoconfig.Incoming = &config.Incoming{Protocol: config.IMAP, Host: "imap.example.net", Port: 993,
			TLS: config.Implicit, Username: config.UserAddress, Authentication: config.ByPassword}
	})
	b := chromium.Start(t, r.base, "en")
	b.Open("/")
	b.LookAround("me-login")
	b.Type(`[name="login"]`, "anna@example.com")
	b.Type(`[name="password"]`, "wrong")
	b.Leads(chromedp.Click("form.stack button"))
	says(t, b, "The user name or the password is wrong.")
	b.Problems() // 403
	b.LookAround("me-login-wrong")
	r.issuer.SignIn(claims("anna@example.net", "4711"))
	b.Leads(chromedp.Click(`a[href="/me/oidc/start"]`))
	says(t, b, "There is none yet.")
	b.LookAround("me-empty")
	b.Leads(chromedp.Click(`a.primary`))
	b.LookAround("me-new")
	b.Type(`[name="name"]`, "Scanner in the hall")
	chromium.Get(b, chromedp.Click(`[value="networks"]`))
	b.Type(`[name="networks"]`, "192.0.2.0/24, the hall")
	b.Leads(chromedp.Click("form.form button.primary"))
	says(t, b, "the hall is no network and no address.")
	b.Problems() // 422
	b.LookAround("me-new-wrong")
	chromium.Get(b, chromedp.Evaluate[string](`document.querySelector("[name=networks]").value = ""`))
	b.Type(`[name="networks"]`, "192.0.2.0/24\n2001:db8:1234:5678:9abc:def0:1234:5678")
	b.Leads(chromedp.Click("form.form button.primary"))
	says(t, b, "The password is shown this once")
	says(t, b, "https://relay.example.com/mail/profile.mobileconfig?emailaddress=anna%40example.net")
	b.LookAround("me-card")
	b.Leads(chromedp.Click("main a.button[href='/me/']"))
	r.http = r.browser()
	b.Open(newPath)
	b.Type(`[name="name"]`, "Thunderbird on the laptop")
	b.Leads(chromedp.Click("form.form button.primary"))
	b.Open(home)
	b.LookAround("me-list")
	b.Leads(chromedp.Click(`td a.button`))
	b.LookAround("me-revoke")
	b.Leads(chromedp.Click(".confirm button"))
	says(t, b, "is revoked.")
	b.LookAround("me-revoked")
	b.Leads(chromedp.Click(".who button"))
	says(t, b, "You are signed out.")
}
