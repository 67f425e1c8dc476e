package suggest

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"list", "remove", "Provider", "anna@example.com", "anne@example.org"}
	for name, want := range map[string]string{
		"lsit": "list", "lst": "list", "LIST": "list", "removes": "remove", "provider": "Provider",
		"provdier":         "Provider",
		"anna@exmaple.com": "anna@example.com", "ana@example.com": "anna@example.com",
		"anne@example.rog": "anne@example.org",
		"":                 "", "x": "", "retain": "", "bob@example.com": "", strings.Repeat("list", 40): "",
	} {
		if got := Nearest(name, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
	if got := Question("lsit", names); got != "; did you mean list?" {
		t.Error(got)
	}
	if got := Question("nothing", names); got != "" {
		t.Error(got)
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		n    int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"ca", "abc", 3}, {"kitten",
		"sitting", 3}, {"trace", "tarce", 1}} {
		if got := edits(c.a, c.b); got != c.n {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.n)
		}
	}
}
