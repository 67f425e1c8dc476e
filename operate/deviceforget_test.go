package operate_test

import (
	"errors"
	"testing"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/devices"
	"postern/relay/queue"
	"postern/relay/trace"
)

// held adds a message that was learned from an address.
func (o *office) held(id, address string) {
	o.Helper()
	now := time.Now()
	m := &queue.Message{ID: id, Login: devices.LearningLogin, Received: now, Expires: now.Add(time.Hour),
		NextAttempt: now, Held: true, HoldReason: "from " + address + ", which is being learned"}
	m.Envelope.From, _ = mail.ParseAddress("copier@example.com")
	to, _ := mail.ParseAddress("bob@example.net")
	m.Recipients = []queue.Recipient{{Recipient: mail.Recipient{To: to}, Status: queue.Pending}}
	o.must(o.store.Add(o.Context(), queue.NewMessage{Message: m,
		Content: mail.BytesContent("Subject: x\r\n\r\nx\r\n")}))
}

// TestForgottenDevices: what was forgotten is not proposed, what it sends later is; its mail goes where that is asked,
// and no other's.
func TestForgottenDevices(t *testing.T) {
	o := newOffice(t)
	o.held("H1", "10.0.5.130")
	o.held("H2", "10.0.5.13")
	proposed := func() (addresses []string) {
		t.Helper()
		all, err := o.Devices.Proposals(t.Context(), root, time.Now())
		o.must(err)
		for _, p := range all {
			addresses = append(addresses, p.Address)
		}
		return addresses
	}
	if got := proposed(); len(got) != 1 {
		t.Fatalf("%q", got)
	}
	for _, address := range []string{"10.0.5.131", "", "\x1b[31m"} {
		_, err := o.Devices.Forget(t.Context(), root, operate.Forgetting{Address: address})
		if kind, _ := operate.KindOf(err); kind != operate.NotFound {
			t.Errorf("%q: %v", address, err)
		}
	}
	helpdesk := operate.Actor{Name: "h", Channel: operate.Console, Role: operate.Helpdesk}
	_, err := o.Devices.Forget(t.Context(), helpdesk, operate.Forgetting{Address: "10.0.5.130", Delete: true})
	if !errors.Is(err, operate.ErrForbidden) {
		t.Errorf("the helpdesk: %v", err)
	}
	accounts := operate.Actor{Name: "a", Channel: operate.API, Scopes: []operate.Scope{operate.ScopeAccounts}}
	_, err = o.Devices.Forget(t.Context(), accounts, operate.Forgetting{Address: "10.0.5.130", Delete: true})
	if !errors.Is(err, operate.ErrForbidden) || len(proposed()) != 1 {
		t.Errorf("who may not delete mail: %v, %q", err, proposed())
	}
	n, err := o.Devices.Forget(t.Context(), root, operate.Forgetting{Address: "10.0.5.130", Delete: true})
	if _, gone := o.store.Get(t.Context(), "H1"); err != nil || n != 1 || !errors.Is(gone, queue.ErrNotFound) {
		t.Errorf("%d deleted, %v, %v", n, err, gone)
	}
	if _, err := o.store.Get(t.Context(), "H2"); err != nil || len(proposed()) != 0 {
		t.Errorf("another's mail: %v; %q is still proposed", err, proposed())
	}
	o.must(o.store.AppendEventsNow(t.Context(), []trace.Event{{Time: time.Now(), Kind: trace.Accepted, ID: "L2",
		Login: devices.LearningLogin, Listener: "devices", Client: "10.0.5.130", From: "copier@example.com"}}))
	if got := proposed(); len(got) != 1 {
		t.Errorf("it sends again, and is not proposed: %q", got)
	}
	p, err := o.Devices.Proposal(t.Context(), root, "10.0.5.130", time.Now())
	if err != nil || p.Messages != 1 || p.Name() != "device-10-0-5-130" {
		t.Errorf("%+v, %v", p, err)
	}
	places, err := o.Devices.Places(root)
	if err != nil || len(places) != 1 || places[0].Listener != "devices" ||
		places[0].Networks[0].String() != "10.0.5.0/24" {
		t.Errorf("%+v, %v", places, err)
	}
}
