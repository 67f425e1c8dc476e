package devices

import (
	"net/netip"
	"testing"
	"time"
)

// TestTable: a learning holds for its listener, network and time alone, and nobody else is known.
func TestTable(t *testing.T) {
	began := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	var table Table
	inside, outside := netip.MustParseAddr("10.0.5.31"), netip.MustParseAddr("10.0.6.31")
	if table.Learns("devices", inside, began) || table.Login("devices", inside) != "" {
		t.Error("the empty table knows somebody")
	}
	table.Set(Known{
		Learnings: []Learning{{Listener: "devices", Network: netip.MustParsePrefix("10.0.5.0/24"), Began: began,
			Until: began.Add(time.Hour)}},
		Places: []Place{{Listener: "devices", Address: inside, Login: "scanner"}},
	})
	for name, c := range map[string]struct {
		listener string
		client   netip.Addr
		at       time.Duration
		learns   bool
	}{
		"inside":           {"devices", inside, 0, true},
		"mapped":           {"devices", netip.MustParseAddr("::ffff:10.0.5.31"), time.Minute, true},
		"last moment":      {"devices", inside, time.Hour - 1, true},
		"over":             {"devices", inside, time.Hour, false},
		"long over":        {"devices", inside, 24 * time.Hour, false},
		"clock set back":   {"devices", inside, -time.Hour, false},
		"another network":  {"devices", outside, 0, false},
		"another listener": {"submission", inside, 0, false},
	} {
		if got := table.Learns(c.listener, c.client, began.Add(c.at)); got != c.learns {
			t.Errorf("%s: %v", name, got)
		}
	}
	if table.Login("devices", inside) != "scanner" || table.Login("submission", inside) != "" ||
		table.Login("devices", outside) != "" {
		t.Error("an account at the wrong place")
	}
}
