package trial

import (
	"fmt"
	"strings"
	"testing"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/upstream"
	"postern/relay/upstream/profile"
)

// What reports will have as their reverse-path is tried: bounce_from, or the null one and what stands in for it.
func TestReversePathsOfReports(t *testing.T) {
	anna := []mail.Address{{Local: "anna", Domain: "example.com"}}
	for _, c := range []struct{ bounceFrom, null, rule, want string }{
		{"", profile.NullAccepted, profile.SenderAny, "<>"},
		{"", profile.NullUnknown, profile.SenderDomain, "<> <postmaster@example.com>"},
		{"", profile.NullRefused, profile.SenderMustMatch, "<relay@example.com>"},
		{"bounces@example.com", profile.NullRefused, profile.SenderMustMatch, "<bounces@example.com>"},
	} {
		conf := &config.Config{Delivery: config.Delivery{BounceFrom: c.bounceFrom}}
		got, err := reversePaths(conf, config.Upstream{NullSender: c.null, SenderRule: c.rule,
			Username: "relay@example.com"}, anna)
		var paths []string
		for _, a := range got {
			paths = append(paths, a.Path())
		}
		if strings.Join(paths, " ") != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, paths, err)
		}
	}
}

// A refused null reverse-path is no fault where reports have an address instead, and one where they have none.
func TestARefusedNullReversePathInATest(t *testing.T) {
	step := upstream.Step{Name: "mail", Sender: "<>", Reply: mail.R(501, "5.1.7", "invalid sender")}
	null, postmaster := mail.Address{}, mail.Address{Local: "postmaster", Domain: "example.com"}
	block := config.Upstream{Name: "office"}
	r := NewReport(block, &Senders{Reports: []mail.Address{null, postmaster}})
	if seen := r.Add(step).Seen; !r.OK ||
		!strings.Contains(seen, "Reports have the reverse-path <postmaster@example.com> instead.") {
		t.Errorf("%s", seen)
	}
	r = NewReport(config.Upstream{Name: "office"}, &Senders{Reports: []mail.Address{null}})
	if r.Add(step); r.OK {
		t.Error("it is well though reports have no other reverse-path")
	}
}

func TestTestedSendersAreBounded(t *testing.T) {
	var s Senders
	for i := range MaxSenders + 2 {
		s.Add(fmt.Sprintf("p%d@example.com", i))
	}
	if len(s.Addresses) != MaxSenders || len(s.Untested) != 2 {
		t.Errorf("%d are tested, %d are not", len(s.Addresses), len(s.Untested))
	}
	if (mail.Address{}) == s.Addresses[0] {
		t.Error("the first is empty")
	}
}
