package console

import (
	"maps"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestGermanPages: longer words fit on a telephone, a tablet and a screen, and what is found, advised and alerted of is
// said in German.
func TestGermanPages(t *testing.T) {
	r := administered(t, 14)
	r.troubled()
	r.fill(20)
	b := browse(t, r, "de")
	pages := adminPages()
	maps.Copy(pages, pagesToLook())
	delete(pages, "missing")
	said := map[string]bool{"now": true, "domain": true, "alerts": true, "message": true}
	for name, path := range pages {
		b.open(path)
		for _, width := range []int64{320, 768, 1024, 1200, 1440} {
			b.look("light", width, 900)
			if get(b, chromedp.Evaluate[bool](
				"document.documentElement.scrollWidth > document.documentElement.clientWidth")) {
				t.Errorf("%s is wider than %d pixels", name, width)
			}
		}
		b.shoot(name + "-de-light-1440")
		text := get(b, chromedp.Evaluate[string](
			`[...document.querySelectorAll("main [lang=en]")].map(e => e.textContent).join("\n")`))
		if said[name] && text != "" {
			t.Errorf("%s says in English:\n%s", name, text)
		}
	}
}
