package console

import (
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"os"
	"strings"
	"testing"

	"postern/operate"
)

// TestHeadersOfEveryAnswer: pages, errors, redirects and refusals.
func TestHeadersOfEveryAnswer(t *testing.T) {
	r := newRig(t)
	for name, w := range map[string]http.Header{
		"page":     r.ask(person(operate.Viewer), "GET", "/", nil).Header(),
		"missing":  r.ask(person(operate.Viewer), "GET", "/nothing", nil).Header(),
		"nobody":   r.ask(nil, "GET", "/", nil).Header(),
		"method":   r.ask(person(operate.Viewer), "POST", "/", nil).Header(),
		"crossing": r.ask(person(operate.Viewer), "POST", "/", nil, field1("Sec-Fetch-Site", "cross-site")).Header(),
	} {
		for field, want := range map[string]string{
			"Content-Security-Policy": "default-src 'self'; script-src 'self'; style-src 'self'; " +
				"img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			"Cross-Origin-Embedder-Policy": "require-corp",
		} {
			if got := w.Get(field); got != want {
				t.Errorf("%s: %s: %q, want %q", name, field, got, want)
			}
		}
	}
}

func TestWhoMayIn(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		who            *operate.Actor
		method, target string
		status         int
		says           string // in the body, or the place it leads to
	}{
		{nil, "GET", "/", http.StatusSeeOther, "/login?next=%2F"},
		{nil, "GET", "/nothing", http.StatusNotFound, "There is no such page."},
		{person(operate.Nobody), "GET", "/", http.StatusForbidden, "Your role does not allow this."},
		{person(operate.Viewer), "GET", "/", http.StatusOK, `aria-current="page"`},
		{person(operate.Viewer), "HEAD", "/", http.StatusOK, ""},
		{person(operate.Viewer), "PUT", "/", http.StatusMethodNotAllowed, "This page cannot be used in this way."},
		{person(operate.Viewer), "GET", "/nothing", http.StatusNotFound, "There is no such page."},
	} {
		w := r.ask(test.who, test.method, test.target, nil)
		if said := w.Body.String() + w.Header().Get("Location"); w.Code != test.status ||
			!strings.Contains(said, test.says) {
			t.Errorf("%s %s: %d %s, want %d and %q", test.method, test.target, w.Code, said, test.status, test.says)
		}
		if w.Code == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", test.method, test.target)
		}
	}
}

// TestPollWithoutASession: a page that keeps itself fresh is led to the login as a whole.
func TestPollWithoutASession(t *testing.T) {
	r := newRig(t)
	w := r.ask(nil, "GET", "/", nil, field1("HX-Request", "true"))
	if w.Code != http.StatusUnauthorized || w.Header().Get("HX-Redirect") != "/login?next=%2F" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// TestOtherSitesCannotAct: by either of the fields that browsers send.
func TestOtherSitesCannotAct(t *testing.T) {
	r := newRig(t)
	for _, from := range []asking{
		field1("Sec-Fetch-Site", "cross-site"), field1("Sec-Fetch-Site", "same-site"),
		field1("Origin", "https://evil.example"), field1("Origin", "null"),
	} {
		w := r.ask(person(operate.Admin), "POST", "/", nil, from)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "another web site") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestLanguages(t *testing.T) {
	r := newRig(t)
	for accept, want := range map[string]string{
		"": "en", "de": "de", "de-AT,de;q=0.9,en;q=0.8": "de", "fr": "en", "en-GB": "en", "nonsense;;q=x": "en",
		"fr,de;q=0.4": "de", strings.Repeat("de,", 400): "en",
	} {
		w := r.ask(person(operate.Viewer), "GET", "/", nil, in(accept))
		if !strings.Contains(w.Body.String(), `<html lang="`+want+`">`) || w.Header().Get("Content-Language") != want {
			t.Errorf("%.30q: not %s", accept, want)
		}
		if !strings.Contains(strings.Join(w.Header().Values("Vary"), ","), "Accept-Language") {
			t.Errorf("%.30q: no Vary", accept)
		}
	}
}

// TestStaticFiles: kept for ever under the hash of their content, and unknown under any other.
func TestStaticFiles(t *testing.T) {
	r, a := newRig(t), loadAssets()
	for name, kind := range map[string]string{
		styleFile: "text/css; charset=utf-8", scriptFile: "text/javascript; charset=utf-8", iconFile: "image/svg+xml",
	} {
		w := r.ask(nil, "GET", a.url(name), nil)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind ||
			w.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" || w.Body.Len() == 0 {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
		if !strings.Contains(r.page("/"), a.url(name)) {
			t.Errorf("the page does not name %s", name)
		}
	}
	for _, path := range []string{"/static/0000/" + styleFile, "/static/x/../../console.go", "/static/"} {
		if w := r.ask(nil, "GET", path, nil); w.Code == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
}

// TestScriptIsAsPublished: the vendored script is what its README says.
func TestScriptIsAsPublished(t *testing.T) {
	data, err := static.ReadFile("static/" + scriptFile)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("static/README.md")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384(data)
	if hash := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(string(readme), "`"+hash+"`") {
		t.Errorf("static/README.md does not have the hash %s", hash)
	}
}
