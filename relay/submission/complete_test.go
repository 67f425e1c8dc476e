package submission

import (
	"testing"
)

func TestForgedResultsAreFoundBehindComments(t *testing.T) {
	for id, ours := range map[string]bool{
		"relay.example.com": true, "RELAY.example.com": true, " relay.example.com 1": true,
		"relay.example.com\t1":      true,
		"(hello) relay.example.com": true, `"relay.example.com"`: true, "relay.example.com.": true,
		"(a)relay.example.com(b) 1": true,
		"other.example.com":         false, "relay.example.com.example.net": false, "": false,
	} {
		if got := namesHost(id, "relay.example.com"); got != ours {
			t.Errorf("%q: %t", id, got)
		}
	}
}

func TestHeloCannotWriteTraceClauses(t *testing.T) {
	for helo, want := range map[string]string{
		"client.example.com": "client.example.com", "[192.0.2.1]": "[192.0.2.1]",
		"[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]",
		"a (b) by evil; x":   "a??b??by?evil??x", "b\u00fcro": "b?ro", "": "unknown",
	} {
		if got := heloWord(helo); got != want {
			t.Errorf("%q became %q, want %q", helo, got, want)
		}
	}
}
