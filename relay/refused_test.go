package relay

import (
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"postern/relay/trace"
)

// TestRefusalsBelowTheSessionAreTraced: what wire refuses by itself is refused mail all the same, and its
// user asks the operator why.
func TestRefusalsBelowTheSessionAreTraced(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	c := r.client(rigLogin)
	if err := c.Mail(rigLogin, &smtp.MailOptions{Size: 1 << 40}); code(err) != 552 {
		t.Fatalf("a message too big: %v", err)
	}
	plain, err := smtp.Dial(r.server.Addresses()["submission"])
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := plain.Mail(rigLogin, nil); code(err) != 530 {
		t.Fatalf("MAIL in clear text: %v", err)
	}
	for _, want := range []struct{ login, command, enhanced string }{
		{rigLogin, "SIZE=1099511627776", "5.3.4"},
		{"", "MAIL FROM:<" + rigLogin + ">", "5.7.0"},
	} {
		r.eventually("a trace of the refused "+want.command, func() bool {
			for _, e := range r.events(trace.Rejected) {
				if e.Login == want.login && e.Reply.Enhanced == want.enhanced &&
					strings.Contains(e.Detail, want.command) {
					return true
				}
			}
			return false
		})
	}
}
