package graph

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// jwt is a token of Entra's with claims, unsigned.
func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
}

// withToken makes an upstream whose token has claims.
func withToken(t *testing.T, fake *fakeprovider.Graph, claims string, change func(*Options)) *Upstream {
	t.Helper()
	u, _ := connected(t, fake, func(o *Options) {
		o.Token = func(context.Context, string) (string, error) { return jwt(claims), nil }
		if change != nil {
			change(o)
		}
	})
	return u
}

func granted(string, string) fakeprovider.Access { return fakeprovider.AccessGranted }

const (
	reader = `{"roles":["Mail.Send","Mail.ReadBasic.All"]}`
	sender = `{"roles":["Mail.Send"]}`
	withID = "Message-ID: <o'1@example.com>\r\n"
)

// A message that Graph may have sent is looked for before it is sent again, by whom may look.
func TestSentItemsAreAskedFirst(t *testing.T) {
	gateway := fakeprovider.GraphFault{Step: fakeprovider.StepSendMail, Status: 504, AfterWork: true, Times: 1}
	for name, c := range map[string]struct {
		claims   string
		read     func(string, string) fakeprovider.Access
		fault    fakeprovider.GraphFault // of the second attempt
		header   string
		class    mail.Class
		arrivals int
	}{
		"found": {reader, granted, fakeprovider.GraphFault{}, withID, mail.Delivered, 1},
		"found, delegated": {`{"scp":"Mail.Send Mail.ReadWrite","upn":"a@example.com"}`, granted,
			fakeprovider.GraphFault{}, withID, mail.Delivered, 1},
		"no right":             {sender, granted, fakeprovider.GraphFault{}, withID, mail.Delivered, 2},
		"a right that is gone": {reader, nil, fakeprovider.GraphFault{}, withID, mail.Delivered, 2},
		"opaque token":         {"", granted, fakeprovider.GraphFault{}, withID, mail.Delivered, 2},
		"no Message-ID":        {reader, granted, fakeprovider.GraphFault{}, "", mail.Delivered, 2},
		"two Message-IDs": {reader, granted, fakeprovider.GraphFault{}, withID + "Message-ID: <2@example.com>\r\n",
			mail.Delivered, 2},
		"throttled": {reader, granted, fakeprovider.GraphFault{Step: fakeprovider.StepSent, Status: 429},
			withID, mail.BackPressure, 1},
		"500": {reader, granted, fakeprovider.GraphFault{Step: fakeprovider.StepSent, Status: 500},
			withID, mail.Deferral, 1},
		"silence": {reader, granted, fakeprovider.GraphFault{Step: fakeprovider.StepSent, Drop: true},
			withID, mail.Deferral, 1},
		"not found": {reader, granted, fakeprovider.GraphFault{Step: fakeprovider.StepSent, Status: 404,
			Code: "ErrorItemNotFound"}, withID, mail.Delivered, 2},
		"an odd answer": {reader, granted, fakeprovider.GraphFault{Step: fakeprovider.StepSent, Status: 200,
			Body: `{"value":"x"}`}, withID, mail.Delivered, 2},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Read: c.read})
			fake.Fail(gateway)
			u := withToken(t, fake, c.claims, nil)
			tx := to(t, "To: a@example.org\r\n"+c.header, "a@example.org", "B@Example.org")
			if r := only(t, send(t, u, tx)); !r.Uncertain {
				t.Fatalf("the first is %s: %s", r.Class, r.Reply)
			}
			fake.Fail(c.fault)
			if c.fault.Step == "" {
				fake.Fail()
			}
			tx.Doubts = 1
			r := only(t, send(t, u, tx))
			if r.Class != c.class || r.Uncertain || len(fake.Arrivals()) != c.arrivals {
				t.Errorf("%s, uncertain %v, %d arrivals: %s", r.Class, r.Uncertain, len(fake.Arrivals()), r.Reply)
			}
			if c.arrivals == 1 && c.class == mail.Delivered && !strings.Contains(r.Reply.Text, "Sent Items") {
				t.Errorf("the reply is %s", r.Reply)
			}
		})
	}
}

// An item of another message, or one that does not name all recipients, proves nothing.
func TestSentItemsOfOthers(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Read: granted})
	u := withToken(t, fake, reader, nil)
	if r := only(t, send(t, u, to(t, "To: a@example.org\r\n"+withID, "a@example.org"))); r.Class != mail.Delivered {
		t.Fatal(r.Reply)
	}
	tx := to(t, "To: a@example.org\r\n"+withID, "a@example.org", "b@example.org")
	tx.Doubts = 1
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered || len(fake.Arrivals()) != 2 {
		t.Errorf("named in the header: %s, %d arrivals", r.Reply, len(fake.Arrivals()))
	}
	tx = to(t, withID, "a@example.org", "c@example.org") // nobody is named, so the one who is missing gets his own
	tx.Doubts = 1
	if rs := send(t, u, tx); rs[0].Class != mail.Delivered || !strings.Contains(rs[0].Reply.Text, "Sent Items") ||
		strings.Contains(rs[1].Reply.Text, "Sent Items") {
		t.Errorf("%s; %s", rs[0].Reply, rs[1].Reply)
	}
	if last := fake.Arrivals()[2].Recipients; len(last) != 1 || last[0] != "c@example.org" {
		t.Errorf("the third is for %v", last)
	}
}

// Mail.Send alone shows nothing; that is asked once a day.
func TestRefusedLooksAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
		u, _ := uploading(t, fake, nil) // large_mail makes it likely
		tx := to(t, withID, "a@example.org")
		tx.Doubts = 1
		for range 3 {
			if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
				t.Fatal(r.Reply)
			}
		}
		if n := fake.Answered(http.StatusForbidden); n != 1 {
			t.Errorf("%d looks", n)
		}
		time.Sleep(blindFor)
		send(t, u, tx)
		if n := fake.Answered(http.StatusForbidden); n != 2 || status(u) != upstreamReady {
			t.Errorf("%d looks after a day, the mailbox is %s", n, status(u))
		}
	})
}

// The last attempt looks by itself: nobody comes back.
func TestTheLastAttemptLooks(t *testing.T) {
	for name, c := range map[string]struct {
		late  time.Duration
		class mail.Class
	}{
		"shown in time": {10 * time.Second, mail.Delivered},
		"not shown":     {time.Hour, mail.Deferral},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Read: granted, SentLate: c.late})
				fake.Fail(fakeprovider.GraphFault{Step: fakeprovider.StepSendMail, Status: 504, AfterWork: true})
				u := withToken(t, fake, reader, nil)
				tx := to(t, withID, "a@example.org")
				tx.Doubts, tx.Last = 2, true
				r := only(t, send(t, u, tx))
				if r.Class != c.class || r.Uncertain != (c.class == mail.Deferral) || len(fake.Arrivals()) != 1 {
					t.Errorf("%s, uncertain %v, %d arrivals: %s", r.Class, r.Uncertain, len(fake.Arrivals()), r.Reply)
				}
			})
		})
	}
}

// Who was found keeps that, though others were not.
func TestTheLastAttemptFindsSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Read: granted, SentLate: 10 * time.Second})
		u := withToken(t, fake, reader, nil)
		if r := only(t, send(t, u, to(t, withID, "a@example.org"))); r.Class != mail.Delivered {
			t.Fatal(r.Reply)
		}
		fake.Fail(fakeprovider.GraphFault{Step: fakeprovider.StepSendMail, Status: 504})
		tx := to(t, withID, "a@example.org", "b@example.org")
		tx.Doubts, tx.Last = 2, true
		rs := send(t, u, tx)
		if rs[0].Class != mail.Delivered || rs[0].Uncertain || rs[1].Class != mail.Deferral || !rs[1].Uncertain {
			t.Errorf("%s: %s; %s: %s", rs[0].Class, rs[0].Reply, rs[1].Class, rs[1].Reply)
		}
	})
}

// A device that gives all its mail one Message-ID has an older message in Sent Items, which says nothing of this one.
func TestSentItemsOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Read: granted})
		u := withToken(t, fake, reader, nil)
		if r := only(t, send(t, u, to(t, withID, "a@example.org"))); r.Class != mail.Delivered {
			t.Fatal(r.Reply)
		}
		time.Sleep(time.Hour)
		tx := to(t, withID, "a@example.org")
		tx.Doubts, tx.Received = 1, time.Now()
		for _, found := range []bool{false, true} {
			r := only(t, send(t, u, tx))
			if got := strings.Contains(r.Reply.Text, "Sent Items"); r.Class != mail.Delivered || got != found ||
				len(fake.Arrivals()) != 2 {
				t.Errorf("found %v, want %v, %d arrivals: %s", got, found, len(fake.Arrivals()), r.Reply)
			}
			time.Sleep(2 * sentSkew) // what was sent after it came in is its own, however much later it is asked for
		}
	})
}

func TestReadRights(t *testing.T) {
	for token, want := range map[string]rights{
		"":        {},
		"a.b":     {},
		"a.!!.c":  {},
		jwt(`x`):  {},
		jwt(`{}`): {known: true},
		"a.b.c.d": {},
		jwt(`{"scp":"Mail.Send Mail.Send.Shared","upn":"a@example.com"}`): {known: true, delegated: true,
			granted: []string{"Mail.Send", "Mail.Send.Shared"}, person: "a@example.com"},
		jwt(`{"roles":["Mail.Send"]}`): {known: true,
			granted: []string{"Mail.Send"}},
		"e30." + strings.Repeat("A", maxClaims+1) + ".x": {},
	} {
		got := readRights(token)
		if got.known != want.known || got.delegated != want.delegated || got.person != want.person ||
			strings.Join(got.granted, " ") != strings.Join(want.granted, " ") {
			t.Errorf("%.60q: %+v", token, got)
		}
	}
}
