package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad: whatever the text, reading ends, every problem has a line of the file, and what is
// accepted is accepted again.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.toml", "../../relay.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Add("[[a.b]]\n[a]\n")
	f.Add("listener = [[]]\nupstream = [{}, 5]\nroute = [{upstreams = [[\"a\"]]}]")
	f.Add("tls.acme.email.x = 1\n[upstream.oauth]\nflow=1\n[auth.source]\ntype=1")
	f.Add("'' = {'' = {}}\n[\"\".'']\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "file") || strings.Contains(text, "env:") {
			return // the fuzzer is not to read files of this machine
		}
		c := Parse("/nonexistent/relay.toml", []byte(text))
		err := c.Validate()
		lines := strings.Count(text, "\n") + 1
		for _, p := range append(problemsOf(t, err), c.Warnings()...) {
			if p.Line < 1 || p.Line > lines || p.Message == "" || p.File != "/nonexistent/relay.toml" {
				t.Fatalf("%q of %d lines", p, lines)
			}
		}
		if err == nil {
			c.Rules()
			if again := Parse("/nonexistent/relay.toml", []byte(text)).Validate(); again != nil {
				t.Fatalf("refused the second time: %v", again)
			}
		}
	})
}

func problemsOf(t *testing.T, err error) []Problem {
	var all *Error
	if err != nil && !errors.As(err, &all) {
		t.Fatalf("%v is not an *Error", err)
	}
	if err == nil {
		return nil
	}
	return all.Problems
}

// FuzzDuration: what is read is shown in a form that is read as the same.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{"5s", "2d", "1w2d3h4m5s", "1.5h", "36500d", "0", "-1s", "1d1", "9999999999h", "1ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 || d.Std() > maxDuration {
			t.Fatalf("%q is %v", s, d.Std())
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%q is shown as %q, which is %v (%v)", s, d, again, err)
		}
	})
}

// FuzzSize: what is read is shown in a form that is read as the same.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"0", "35MB", "1.5GB", "9223372036854775807", "1KiB", "0.5KiB", "-1B", "1..5MB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		z, err := ParseSize(s)
		if err != nil {
			return
		}
		if again, err := ParseSize(z.String()); z < 0 || err != nil || again != z {
			t.Fatalf("%q is shown as %q, which is %d (%v)", s, z, again, err)
		}
	})
}

// FuzzRate: as FuzzSize.
func FuzzRate(f *testing.F) {
	for _, s := range []string{"0/s", "1KB/s", "1.5MiB/s", "/s", "1KB/m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRate(s)
		if err != nil {
			return
		}
		if again, err := ParseRate(r.String()); r < 0 || err != nil || again != r {
			t.Fatalf("%q is shown as %q, which is %d (%v)", s, r, again, err)
		}
	})
}
