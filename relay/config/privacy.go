package config

import (
	"slices"
	"strings"
	"time"
)

// addressModes are what [privacy] recipients and clients may be.
var addressModes = []string{"keep", "hash", "cut"}

// maxStatistics bounds how long statistics are kept.
const maxStatistics = 10 * 365 * 24 * time.Hour

func (v *validator) privacy() {
	p := v.Privacy
	if v.doc.has("privacy.history") {
		v.atLeast("privacy.history", p.History, time.Hour)
		if v.doc.has("store.history") {
			v.fail("privacy.history", "is store.history, which stands in this file too, remove one of them")
		}
	}
	v.atLeast("privacy.statistics", p.Statistics, 24*time.Hour)
	v.atMost("privacy.statistics", p.Statistics, maxStatistics, "the store keeps what it has room for")
	for _, key := range []struct{ name, mode string }{{"recipients", p.Recipients}, {"clients", p.Clients}} {
		if !slices.Contains(addressModes, key.mode) {
			v.fail("privacy."+key.name, `unknown value %q, write "%s"`, key.mode, strings.Join(addressModes, `", "`))
		}
	}
	if p.After == 0 {
		return
	}
	switch keeps := p.Recipients == "keep" && p.Clients == "keep"; {
	case keeps:
		v.warn("privacy.after", "has no effect: recipients and clients are kept; write hash or cut for one of them")
	case p.After.Std() >= p.History.Std():
		v.warn("privacy.after", "has no effect: nothing is older than history, %s", p.History)
	case p.After.Std() < time.Hour:
		v.fail("privacy.after", "%s is too short, write 0s, or at least 1h: it is looked for every ten minutes",
			p.After)
	}
}
