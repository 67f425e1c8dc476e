package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestProgress: quick work is silent, a long step is named while it goes on, and so is one of many quick ones.
func TestProgress(t *testing.T) {
	for what, c := range map[string]struct {
		steps []time.Duration
		want  string
	}{
		"quick":        {[]time.Duration{time.Second / 2, time.Second}, ""},
		"a long step":  {[]time.Duration{time.Second, time.Minute, time.Second}, "b c"},
		"many quick":   {[]time.Duration{time.Second, time.Second, time.Second, time.Second, time.Second}, "c e"},
		"a long first": {[]time.Duration{time.Minute, time.Minute}, "a b"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out strings.Builder
			p := newProgress(&out)
			for i, d := range c.steps {
				p.step(string(rune('a' + i)))
				time.Sleep(d)
			}
			p.end()
			time.Sleep(time.Minute)
			var got []string
			for line := range strings.Lines(out.String()) {
				got = append(got, strings.Fields(line)[1])
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("%s: told %q, want %q", what, text, c.want)
			}
		})
	}
}
