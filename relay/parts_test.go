package relay

import (
	"strings"
	"testing"
)

// What goes in more than one transaction is durable before the first: a kill between two repeats nothing.
func TestPartsAreNotHandedOff(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, "upstream:max_recipients = 2\n")
	reply, err := r.send("anna@example.com", []string{"ann@example.net", "ben@example.net", "cid@example.net"},
		plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Errorf("got %q, %v; want it queued", reply, err)
	}
	if got := p.wait(2); len(got[0].to)+len(got[1].to) != 3 {
		t.Errorf("%v and %v", got[0].to, got[1].to)
	}
	reply, err = r.send("anna@example.com", []string{"ann@example.net", "ben@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "taken by") {
		t.Errorf("got %q, %v; want it handed off", reply, err)
	}
}
