package fields

import (
	"fmt"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{"a": "[a]", "a,b": "[a b]", ",a,,b,": "[a b]", "": "", ",": ""} {
		list, err := Split(in)
		if got := fmt.Sprint(list); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("Split(%q) = %s, %v", in, got, err)
		}
	}
	if list, _ := Split(strings.Repeat("a,", 1000)); Groups(list) == nil {
		t.Error("1000 groups are taken")
	}
}

func TestChecks(t *testing.T) {
	for s, right := range map[string]bool{"staff": true, "Mail Senders": true, "": false, "a\nb": false,
		"\x1b[2J": false, strings.Repeat("x", maxItem+1): false} {
		if err := Groups([]string{s}); (err == nil) != right {
			t.Errorf("group %q: %v", s, err)
		}
	}
	for s, right := range map[string]bool{"anna@example.com": true, "*@example.com": true, "nonsense": false,
		"": false} {
		if err := Senders([]string{s}); (err == nil) != right {
			t.Errorf("sender %q: %v", s, err)
		}
	}
	for s, want := range map[string]string{"192.0.2.0/24": "192.0.2.0/24", "192.0.2.7": "192.0.2.7/32",
		"2001:db8::/32": "2001:db8::/32", "::ffff:192.0.2.7": "192.0.2.7/32", "192.0.2.7/24": "192.0.2.0/24",
		"::ffff:192.0.2.0/120": "", "fe80::1%eth0": "", "here": "", "": "", "0.0.0.0/33": ""} {
		nets, err := Networks([]string{s})
		if (err == nil) != (want != "") || err == nil && nets[0].String() != want {
			t.Errorf("network %q: %v, %v", s, nets, err)
		}
	}
}
