package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/operate"
	"postern/relay/config"
)

// taught is an office in which devices are learned, a CA refuses us, and logins have keys.
func taught(t *testing.T) *rig {
	r := learner(t)
	r.healthy()
	r.accounts(6)
	r.seen("10.0.5.31", "10.0.5.32")
	r.failed(r.now.Add(3 * time.Hour))
	r.must(r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com", Created: r.now, Changed: r.now}))
	_, err := r.operations.ClientCertificates.Pin(t.Context(), operate.Actor{Channel: operate.CommandLine},
		operate.Everybody, "scanner-00001", []byte(strings.Repeat("1a", 32)))
	r.must(err)
	return r
}

// around looks at a page in both themes, on a telephone and on a screen.
func (b *browser) around(name string) {
	b.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{320, 1440} {
			b.look(theme, width, 900)
			what := fmt.Sprintf("%s-%s-%d", name, theme, width)
			b.accessible(what)
			b.shoot(what)
		}
	}
}

// TestAccessibilityOfDevices: no page of devices, certificates and mail programs has a violation of axe-core's rules.
func TestAccessibilityOfDevices(t *testing.T) {
	r := taught(t)
	b := browse(t, r, "en")
	for name, path := range map[string]string{"learning": "/learning",
		"learn-accept": "/learning/device?address=10.0.5.31", "certificates": "/certificates",
		"client": "/logins/anna@example.com/client", "login-keys": "/logins/scanner-00001",
		"logins-learning": "/logins"} {
		b.open(path)
		b.around(name)
	}
	b.look("light", 768, 900)
	b.open("/learning")
	b.accessible("learning-768")
	b.leads(chromedp.Click(`form[action="/learning/act/forget"] button`))
	b.around("learn-forget")
	b.open("/certificates")
	b.leads(chromedp.Click(`form[action="/certificates/act/records"] button`))
	b.around("certificate-records")
	german := browse(t, r, "de")
	for name, path := range map[string]string{"learning": "/learning", "certificates": "/certificates",
		"client": "/logins/anna@example.com/client", "login-keys": "/logins/scanner-00001",
		"learn-accept": "/learning/device?address=10.0.5.31"} {
		german.look("light", 1024, 900)
		german.open(path)
		german.accessible(name + "-de")
		german.shoot(name + "-de-1024")
	}
	empty := newRig(t)
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	empty.config = config.Parse("relay.toml", []byte("hostname = \"localhost\"\n[tls]\ncert_file = \""+leaf.CertFile+
		"\"\nkey_file = \""+leaf.KeyFile+"\"\n"))
	b = browse(t, empty, "de")
	for name, path := range map[string]string{"learning-none": "/learning", "certificates-file": "/certificates"} {
		b.look("light", 1024, 800)
		b.open(path)
		b.accessible(name)
		b.shoot(name + "-de-1024")
	}
}

// TestLearningInTheBrowser: begun, a device accepted up to its card, another forgotten with its mail, and stopped; the
// page looks again by itself. All of it without JavaScript, too.
func TestLearningInTheBrowser(t *testing.T) {
	for _, script := range []bool{true, false} {
		r := learner(t)
		r.healthy()
		b := browse(t, r, "en")
		b.look("light", 900, 900)
		if !script {
			_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
				emulation.SetScriptExecutionDisabledParams{Value: true})
			b.must(err)
		}
		b.open("/logins")
		b.leads(chromedp.Click(`a[href="/learning"]`))
		b.leads(chromedp.Click(`form[action="/learning/act/begin"] button`))
		known, err := r.store.KnownDevices(t.Context())
		if r.must(err); len(known.Learnings) != 1 || known.Learnings[0].Network.String() != "10.0.5.0/24" {
			t.Fatalf("%+v", known)
		}
		r.seen("10.0.5.31", "10.0.5.32")
		if script {
			get(b, chromedp.Evaluate[bool]("document.body.dataset.stays = '1'; htmx.trigger('#live', 'every'); true"))
			get(b, chromedp.WaitVisible(`a[href="/learning/device?address=10.0.5.31"]`))
			if !get(b, chromedp.Evaluate[bool]("document.body.dataset.stays === '1'")) {
				t.Error("the page was loaded anew")
			}
		} else {
			b.open("/learning")
		}
		b.leads(chromedp.Click(`a[href="/learning/device?address=10.0.5.31"]`))
		get(b, chromedp.SetValue(`input[name="login"]`, "copier-1"))
		get(b, chromedp.Click(`input[name="release"]`))
		b.leads(chromedp.Click("form.form button.primary"))
		if script {
			b.around("card-accepted")
		}
		if got := get(b, chromedp.Text(".sheet")); !strings.Contains(got, "off at 10.0.5.31") {
			t.Errorf("%s", got)
		}
		if m, err := r.store.Get(t.Context(), id(900)); err != nil || m.Held {
			t.Errorf("%+v, %v", m, err)
		}
		b.open("/learning")
		b.leads(chromedp.Click(`form[action="/learning/act/forget"] button`))
		get(b, chromedp.Click(`input[name="delete"]`))
		b.leads(chromedp.Click(".confirm button.danger"))
		if _, err := r.store.Get(t.Context(), id(901)); err == nil {
			t.Error("its mail is still there")
		}
		b.leads(chromedp.Click(`form[action="/learning/act/stop"] button`))
		known, err = r.store.KnownDevices(t.Context())
		if r.must(err); len(known.Places) != 1 || len(known.Forgotten) != 1 ||
			known.Learnings[0].Until.After(time.Now()) {
			t.Errorf("%+v", known)
		}
	}
}

// TestKeysAndCertificatesInTheBrowser: a key comes and goes in the store, and a renewal is asked for.
func TestKeysAndCertificatesInTheBrowser(t *testing.T) {
	r := learner(t)
	r.healthy()
	r.accounts(2)
	b := browse(t, r, "en")
	b.look("light", 1280, 900)
	key := strings.Repeat("2b", 32)
	b.open("/logins/scanner-00001")
	get(b, chromedp.SetValue(`textarea[name="key"]`, "nonsense"))
	b.leads(chromedp.Click(`form[action="/logins/act/pin"] button`))
	get(b, chromedp.WaitVisible(".wrong"))
	b.accessible("wrong key")
	get(b, chromedp.SetValue(`textarea[name="key"]`, key))
	b.leads(chromedp.Click(`form[action="/logins/act/pin"] button`))
	keys, err := r.store.Certificates(t.Context(), "scanner-00001")
	if r.must(err); len(keys) != 1 || keys[0].Digest.String() != key {
		t.Fatalf("%+v", keys)
	}
	b.leads(chromedp.Click(`form[action="/logins/act/unpin"] button`))
	b.accessible("unpin")
	b.leads(chromedp.Click(".confirm button"))
	if keys, err = r.store.Certificates(t.Context(), "scanner-00001"); err != nil || len(keys) != 0 {
		t.Errorf("%+v, %v", keys, err)
	}
	b.open("/certificates")
	b.leads(chromedp.Click(`form[action="/certificates/act/renew"] button`))
	b.accessible("renew")
	b.leads(chromedp.Click(".confirm button"))
	list, err := r.operations.Certificates.List(t.Context(), *person(operate.Viewer))
	if r.must(err); list[0].Asked.IsZero() {
		t.Errorf("%+v", list)
	}
	b.accessible("asked for")
	b.shoot("certificates-asked")
}
