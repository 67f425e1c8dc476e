package access

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"postern/operate"
)

// What works once works once at all nodes: a browser, or who has copied its cookie, comes to both at the same time and
// later.
func TestOnceAtAllNodes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := newRigIn(t, dir)
	second := newRigIn(t, dir, func(o *Options) { o.Now = func() time.Time { return first.clock.now } })
	ctx := t.Context()
	var turn atomic.Int64
	once := func(what string, f func(at *Access) error) {
		t.Helper()
		if n := atOnce(func() error { return f([]*Access{first.Access, second.Access}[turn.Add(1)%2]) }); n != 1 {
			t.Errorf("%s: it worked %d times", what, n)
		}
		if f(first.Access) == nil || f(second.Access) == nil {
			t.Errorf("%s: it works again later", what)
		}
	}
	secret, cookie := first.join("anna", operate.Admin)
	code := first.code(secret)
	once("login with a code", func(a *Access) error {
		_, err := a.Logins.Login(ctx, Credentials{"anna", password, code}, client)
		return err
	})
	first.clock.pass(StrongFor)
	code = first.code(secret)
	once("step up with a code", func(a *Access) error {
		s, err := a.Logins.Session(ctx, cookie, false)
		if err != nil {
			return err
		}
		_, err = a.Logins.StepUp(ctx, s, code, client)
		return err
	})
	d := newDevice()
	first.joinWithPasskey("ben", d)
	options, flow, err := first.Passkeys.Begin(ctx, "ben")
	if err != nil {
		t.Fatal(err)
	}
	response := d.get(t, options)
	once("login with a passkey", func(a *Access) error {
		_, err := a.Passkeys.Finish(ctx, flow, response, client)
		return err
	})
	f := sealedFlow(t, first.Access)
	once("the end of a flow", func(a *Access) error { return a.flows.endFlow(ctx, f) })
}

func sealedFlow(t *testing.T, a *Access) flow {
	t.Helper()
	sealed, err := a.sealFlow(flow{Kind: flowOIDC})
	if err != nil {
		t.Fatal(err)
	}
	f, err := a.openFlow(flowOIDC, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
