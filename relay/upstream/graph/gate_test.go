package graph

import (
	"testing"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// A login that somebody has mended is tried at once; what Graph itself has said waits its time.
func TestTryAgain(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, k := connected(t, fake, nil)
	k.err = lasting(true)
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.AccountFault {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	woken := 0
	u.OnChange(func() { woken++ })
	k.err = nil
	u.TryAgain()
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered || woken < 1 {
		t.Errorf("%s: %s, woken %d times", r.Class, r.Reply, woken)
	}
	fake.Fail(fakeprovider.GraphFault{Status: 404, Code: "ErrorInvalidUser"})
	send(t, u, to(t, "", "a@example.org"))
	u.TryAgain()
	if s, until := u.Reserve(time.Now(), ""); s != nil || until.IsZero() {
		t.Error("a mailbox that does not exist is asked again")
	}
}
