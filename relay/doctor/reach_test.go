package doctor

import (
	"net/netip"
	"testing"

	"postern/auth"
	"postern/relay/finding"
)

// TestUnreachedDevices: a device that no listener is open to is told, with the reason; programs of this machine and
// people are not.
func TestUnreachedDevices(t *testing.T) {
	local := "[[listener]]\naddress = \"127.0.0.1:2525\"\ntls = \"none\"\n"
	open := "[[listener]]\naddress = \":2526\"\nprofile = \"appliance\"\nnetworks = [\"10.0.5.0/24\"]\n"
	for name, c := range map[string]struct {
		listeners string
		user      auth.User
		says      string // "": nothing
	}{
		"local alone":     {local, auth.User{Device: true}, "this machine alone"},
		"person":          {local, auth.User{}, ""},
		"program here":    {local, auth.User{Device: true, Networks: nets("127.0.0.1/32")}, ""},
		"open":            {local + open, auth.User{Device: true, Networks: nets("10.0.5.31/32")}, ""},
		"anywhere":        {open, auth.User{Device: true}, ""},
		"wider":           {open, auth.User{Device: true, Networks: nets("10.0.0.0/8")}, ""},
		"another network": {local + open, auth.User{Device: true, Networks: nets("10.0.6.31/32")}, "its network"},
		"one of two":      {open, auth.User{Device: true, Networks: nets("10.0.6.31/32", "10.0.5.0/32")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWard(t, c.listeners+plainUpstream)
			s := w.daemon(nil)
			c.user.Login, c.user.Senders = "scanner-2", []string{"scans@example.com"}
			if err := s.AddUser(t.Context(), c.user); err != nil {
				t.Fatal(err)
			}
			if list := w.examine("accounts"); c.says == "" {
				not(t, list, codeDeviceUnreached)
			} else {
				want(t, list, codeDeviceUnreached, finding.Fault, "scanner-2", c.says)
			}
		})
	}
}

func nets(all ...string) (list []netip.Prefix) {
	for _, one := range all {
		list = append(list, netip.MustParsePrefix(one))
	}
	return list
}
