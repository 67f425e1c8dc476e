package doctor

import (
	"net/netip"
	"testing"
	"time"

	"postern/relay/devices"
	"postern/relay/finding"
	"postern/relay/trace"
)

// TestDeviceFindings: what a listener for old devices lets in beyond need is told, and what it needs is not.
func TestDeviceFindings(t *testing.T) {
	w := newWard(t, `[[listener]]
name = "old"
address = "127.0.0.1:2525"
profile = "appliance"
networks = ["10.0.0.0/24"]
min_version = "1.0"

[[listener]]
name = "wide"
address = "127.0.0.1:2526"
profile = "appliance"
auth = "network"
login = "scans"
networks = ["10.0.0.0/16", "10.1.0.31/32"]
`+plainUpstream)
	s := w.daemon(nil)
	accepted := func(version string) trace.Event {
		return trace.Event{Time: time.Now(), Kind: trace.Accepted, Listener: "old", Client: "10.0.0.31", TLS: version}
	}
	if err := s.AppendEventsNow(t.Context(), []trace.Event{accepted("TLS 1.2")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Learn(t.Context(), devices.Learning{Listener: "old", Network: netip.MustParsePrefix("10.0.0.0/24"),
		Began: time.Now(), Until: time.Now().Add(time.Hour), By: "root"}); err != nil {
		t.Fatal(err)
	}
	list := w.examine("devices")
	want(t, list, codeDeviceLearning, finding.Advice, "10.0.0.0/24", "without login", "--stop")
	want(t, list, codeDeviceNetworkWide, finding.Advice, "wide 10.0.0.0/16", "scans")
	want(t, list, codeDeviceOldUnused, finding.Advice, "old", "TLS 1.0", "min_version")
	if err := s.AppendEventsNow(t.Context(), []trace.Event{accepted("TLS 1.0")}); err != nil {
		t.Fatal(err)
	}
	not(t, w.examine("devices"), codeDeviceOldUnused)
}

// TestDevicesWell: a listener for old devices that is as it should be is well, and without one nothing is said.
func TestDevicesWell(t *testing.T) {
	w := newWard(t, "[[listener]]\nprofile = \"appliance\"\nnetworks = [\"10.0.0.0/24\"]\n"+plainUpstream)
	w.daemon(nil)
	if list := w.examine("devices"); len(list) != 1 || list[0].Code != codeDeviceOK {
		t.Errorf("%+v", list)
	}
	w = newWard(t, plainUpstream)
	w.daemon(nil)
	if list := w.examine("devices"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}
