package local

import "testing"

func TestHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.9.9.9": true,
		"::1": true, "::ffff:127.0.0.1": true, "10.0.0.1": false, "2130706433": false,
		"": false, "localhost.": false, "localhost.example.com": false, "127.1": false, "0.0.0.0": false,
		"::": false, "[::1]": false, "127.0.0.1:80": false, "::ffff:10.0.0.1": false,
	} {
		if Host(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}
