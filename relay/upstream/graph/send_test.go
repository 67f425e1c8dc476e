package graph

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
	"postern/relay/upstream/account/accounttest"
)

const (
	upstreamReady      = upstream.Ready
	upstreamBackingOff = upstream.BackingOff
	upstreamPaused     = upstream.Paused
)

// What Graph answers decides about the mail and about the mailbox.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		fault     fakeprovider.GraphFault
		class     mail.Class
		status    upstream.Status
		uncertain bool
		says      string
	}{
		"denied": {fakeprovider.GraphFault{Status: 403, Code: "ErrorAccessDenied",
			Message: "Access is denied."}, mail.AccountFault, upstreamPaused, false,
			"HTTP 403 ErrorAccessDenied: Access is denied. (request-id 0000"},
		"send as": {fakeprovider.GraphFault{Status: 403, Code: "ErrorSendAsDenied", Message: "no right"},
			mail.AccountFault, upstreamReady, false, "ErrorSendAsDenied"},
		"no mailbox": {fakeprovider.GraphFault{Status: 404, Code: "MailboxNotEnabledForRESTAPI"},
			mail.AccountFault, upstreamPaused, false, "MailboxNotEnabled"},
		"quota": {fakeprovider.GraphFault{Status: 403, Code: "ErrorExceededMessageLimit"}, mail.AccountFault,
			upstreamPaused, false, "ErrorExceeded"},
		"mailbox full": {fakeprovider.GraphFault{Status: 413, Code: "ErrorQuotaExceeded"}, mail.AccountFault,
			upstreamPaused, false, "ErrorQuota"},
		"too big": {fakeprovider.GraphFault{Status: 413, Body: "<html>"}, mail.MessageFault, upstreamReady,
			false, "HTTP 413"},
		"too big inside": {fakeprovider.GraphFault{Status: 400, Code: "ErrorMessageSizeExceeded"}, mail.MessageFault,
			upstreamReady, false, "SizeExceeded"},
		"throttled": {fakeprovider.GraphFault{Status: 429, Code: "ApplicationThrottled", RetryAfter: "30"},
			mail.BackPressure, upstreamBackingOff, false, "HTTP 429"},
		"busy": {fakeprovider.GraphFault{Status: 503, RetryAfter: "30"}, mail.BackPressure,
			upstreamBackingOff, false, "HTTP 503 Service Unavailable"},
		"server error": {fakeprovider.GraphFault{Status: 500, Code: "ErrorInternalServerError"}, mail.Deferral,
			upstreamReady, true, "HTTP 500"},
		"gateway": {fakeprovider.GraphFault{Status: 504, Code: "UnknownError", AfterWork: true}, mail.Deferral,
			upstreamReady, true, "HTTP 504"},
		"200":      {fakeprovider.GraphFault{Status: 200}, mail.Deferral, upstreamReady, true, "HTTP 200"},
		"redirect": {fakeprovider.GraphFault{Status: 302}, mail.AccountFault, upstreamPaused, false, "HTTP 302"},
		"a proxy's 400": {fakeprovider.GraphFault{Status: 400, Body: "bad hair day"}, mail.Deferral, upstreamReady,
			false, "HTTP 400"},
		"unknown": {fakeprovider.GraphFault{Status: 400, Code: "ErrorNews", Message: "a\r\n250 b\x00c"},
			mail.Deferral, upstreamReady, false, "ErrorNews: a 250 b?c"},
		"silence": {fakeprovider.GraphFault{Drop: true}, mail.Deferral, upstreamReady, true,
			"may have been sent"},
		"silence, taken": {fakeprovider.GraphFault{Drop: true, AfterWork: true}, mail.Deferral, upstreamReady, true,
			"may have been sent"},
		"cut before": {fakeprovider.GraphFault{Drop: true, Early: true}, mail.Deferral, upstreamReady, false,
			"closed the connection"},
		"202 too early": {fakeprovider.GraphFault{Status: 202, Early: true}, mail.Deferral, upstreamReady, true,
			"before its end"},
		"endless answer": {fakeprovider.GraphFault{Status: 429, Body: strings.Repeat("x", 1<<20)}, mail.BackPressure,
			upstreamBackingOff, false, "HTTP 429"},
		"endless message": {fakeprovider.GraphFault{Status: 429, Code: strings.Repeat("c", 9999),
			Message: strings.Repeat("x", 9999)}, mail.BackPressure, upstreamBackingOff, false, "..."},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			fake.Fail(c.fault)
			u, _ := connected(t, fake, nil)
			r := only(t, send(t, u, to(t, "To: a@example.org\r\n", "a@example.org", "b@example.org")))
			if r.Class != c.class || r.Uncertain != c.uncertain || !strings.Contains(r.Reply.Text, c.says) {
				t.Errorf("%s, uncertain %v: %s", r.Class, r.Uncertain, r.Reply)
			}
			if r.Class.Permanent() != r.Reply.Permanent() || len(r.Reply.Text) > 1000 {
				t.Errorf("reply of %d octets: %s", len(r.Reply.Text), r.Reply)
			}
			if status(u) != c.status {
				t.Errorf("the mailbox is %s", status(u))
			}
			if c.fault.RetryAfter == "30" && r.RetryAfter != 30*time.Second {
				t.Errorf("retry after %s", r.RetryAfter)
			}
		})
	}
}

func TestDeliveredKeepsTheRequestID(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	r := only(t, send(t, u, to(t, "", "a@example.org")))
	if want := "HTTP 202 Accepted (request-id " + fake.Arrivals()[0].RequestID +
		")"; r.Reply != mail.R(250, "2.0.0", "%s", want) || r.Stage != mail.StageDot {
		t.Errorf("%s at %s", r.Reply, r.Stage)
	}
}

// 202 with Retry-After is a sent message and a tired mailbox.
func TestAcceptedWithRetryAfter(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	fake.Fail(fakeprovider.GraphFault{Status: 202, RetryAfter: "60", AfterWork: true})
	u, _ := connected(t, fake, nil)
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered {
		t.Fatalf("%s", r.Class)
	}
	if s := u.States()[0]; s.Status != upstreamBackingOff || time.Until(s.Until) < 55*time.Second {
		t.Errorf("%+v", s)
	}
}

func TestExpiredTokenIsReplacedOnce(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Token: func(token, _ string) fakeprovider.Access {
		if token == "token-1" {
			return fakeprovider.AccessGranted
		}
		return fakeprovider.AccessInvalid
	}})
	u, k := connected(t, fake, nil)
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	if k.drops() != 1 || fake.Requests() != 2 || len(fake.Arrivals()) != 1 {
		t.Errorf("%d drops, %d requests, %d arrivals", k.drops(), fake.Requests(), len(fake.Arrivals()))
	}
	k.serial = 7 // now no token is good
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.AccountFault || r.Stage != mail.StageAuth {
		t.Errorf("%s at %s", r.Class, r.Stage)
	}
	if k.drops() != 3 || fake.Requests() != 4 || status(u) != upstreamPaused {
		t.Errorf("%d drops, %d requests, %s", k.drops(), fake.Requests(), status(u))
	}
}

// A permission that was denied is inside the token: the next attempt needs another one.
func TestDeniedDropsTheToken(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Token: func(string,
		string) fakeprovider.Access {
		return fakeprovider.AccessDenied
	}})
	u, k := connected(t, fake, nil)
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.AccountFault {
		t.Errorf("%s", r.Class)
	}
	if k.drops() != 1 || fake.Requests() != 1 {
		t.Errorf("%d drops, %d requests", k.drops(), fake.Requests())
	}
}

type lasting bool

func (l lasting) Error() string             { return "no grant" }
func (l lasting) Unwrap() error             { return nil }
func (l lasting) RetryAfter() time.Duration { return 0 }
func (l lasting) Reply() mail.Reply         { return mail.R(454, "4.7.0", "no grant") }
func (l lasting) Class() mail.Class {
	if l {
		return mail.AccountFault
	}
	return mail.BackPressure
}

func TestTokenErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		class  mail.Class
		status upstream.Status
	}{
		"lasting":   {fmt.Errorf("token: %w", lasting(true)), mail.AccountFault, upstreamPaused},
		"passing":   {lasting(false), mail.BackPressure, upstreamBackingOff},
		"any":       {errors.New("down"), mail.BackPressure, upstreamBackingOff},
		"time out":  {context.DeadlineExceeded, mail.BackPressure, upstreamBackingOff},
		"cancelled": {context.Canceled, mail.Deferral, upstreamReady},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, k := connected(t, fake, nil)
			k.err = c.err
			r := only(t, send(t, u, to(t, "", "a@example.org")))
			if r.Class != c.class || status(u) != c.status || fake.Requests() != 0 || r.Stage != mail.StageAuth {
				t.Errorf("%s at %s, %s, %d requests", r.Class, r.Stage, status(u), fake.Requests())
			}
		})
	}
}

func TestLargeMessages(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	head := text("To: a@example.org\r\n")
	disk := &onDisk{octets: head + strings.Repeat("0123456789abcde\r\n", (DefaultMessageSize-len(head)-200)/17)}
	tx := to(t, "", "a@example.org", "blind@example.net")
	tx.Content = disk
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	got := string(fake.Arrivals()[0].MIME)
	if want := strings.Replace(disk.octets, "\r\n\r\n", "\r\nBcc: blind@example.net\r\n\r\n", 1); got != want {
		t.Errorf("%d octets arrived, %d were sent", len(got), len(want))
	}

	disk.octets += strings.Repeat("x", 1000)
	before := fake.Requests()
	r := only(t, send(t, u, tx))
	if r.Class != mail.MessageFault || r.Reply.Code != 552 || r.Reply.Enhanced != "5.3.4" || fake.Requests() != before {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
	tx.Content, tx.Prefix = mail.BytesContent(head), func(context.Context) ([]byte,
		error) {
		return make([]byte, DefaultMessageSize), nil
	}
	if r := only(t, send(t, u, tx)); r.Reply.Enhanced != "5.3.4" {
		t.Errorf("with a large prefix: %s", r.Reply)
	}
}

// A message that cannot be read to its end is never sent as if it had ended.
func TestUnreadableContent(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	tx := to(t, "", "a@example.org")
	octets := text("") + strings.Repeat("line\r\n", 200_000)
	for _, cut := range []int{10, len(octets) - 1} {
		tx.Content = &onDisk{octets: octets, cut: cut}
		if r := only(t, send(t, u, tx)); r.Class != mail.Deferral || r.Uncertain || r.Reply.Enhanced != "4.3.0" {
			t.Errorf("cut at %d: %s, %s", cut, r.Class, r.Reply)
		}
	}
	if len(fake.Arrivals()) != 0 || status(u) != upstreamReady {
		t.Errorf("%d arrivals, %s", len(fake.Arrivals()), status(u))
	}
}

func TestPrefixGoesOnTop(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	tx := to(t, "", "a@example.org")
	tx.Prefix = func(context.Context) ([]byte, error) { return []byte("DKIM-Signature: v=1\r\n"), nil }
	send(t, u, tx)
	if got := string(fake.Arrivals()[0].MIME); !strings.HasPrefix(got, "DKIM-Signature: v=1\r\nFrom: ") {
		t.Errorf("%q", got)
	}
	tx.Prefix = func(context.Context) ([]byte, error) { return nil, errors.New("no key") }
	if r := only(t, send(t, u, tx)); r.Class != mail.Deferral || r.Stage != mail.StageSign ||
		len(fake.Arrivals()) != 1 {
		t.Errorf("%s at %s", r.Class, r.Stage)
	}
}

// Shutting down stops a request that is not whole, and waits a while for the answer to one that is.
func TestCancel(t *testing.T) {
	for name, c := range map[string]struct {
		delay     time.Duration
		early     bool
		class     mail.Class
		uncertain bool
		after     time.Duration
	}{
		"answer in time":    {8 * time.Second, false, mail.Delivered, false, 8 * time.Second},
		"answer too late":   {time.Minute, false, mail.Deferral, true, 11 * time.Second},
		"before the octets": {time.Minute, true, mail.Deferral, false, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
				slow := &slowly{rt: testkit.Transport(fake), delay: c.delay, early: c.early}
				u, _ := connected(t, fake, func(o *Options) { o.Transport = slow })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begun := time.Now()
				r := reserve(t, u).Send(ctx, to(t, "", "a@example.org"))[0]
				if r.Class != c.class || r.Uncertain != c.uncertain || time.Since(begun) != c.after {
					t.Errorf("%s, uncertain %v after %s: %s", r.Class, r.Uncertain, time.Since(begun), r.Reply)
				}
				if status(u) != upstreamReady {
					t.Errorf("the mailbox is %s", status(u))
				}
			})
		})
	}
}

// Nothing is asked when the slot is over by the clock.
func TestNothingIsSentWithoutSlot(t *testing.T) {
	file, _ := scan(t) // more than one request takes
	for name, tx := range map[string]upstream.Transaction{"at once": to(t, "", "a@example.org"), "as a draft": file} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
				u, _ := uploading(t, fake, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				slept := &accounttest.Stood{Context: ctx}
				slept.Over.Store(true)
				r := reserve(t, u).Send(slept, tx)[0]
				if r.Class != mail.Deferral || r.Uncertain || status(u) != upstreamReady {
					t.Errorf("%s, uncertain %v: %s; the mailbox is %s", r.Class, r.Uncertain, r.Reply, status(u))
				}
				if n := fake.Requests(); n != 0 {
					t.Errorf("%d requests came", n)
				}
			})
		})
	}
}

func TestRequestTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
		u, _ := connected(t, fake, func(o *Options) {
			o.Transport = &slowly{rt: testkit.Transport(fake),
				delay: time.Hour}
		})
		begun := time.Now()
		r := only(t, send(t, u, to(t, "", "a@example.org")))
		if r.Class != mail.Deferral || !r.Uncertain || time.Since(begun) != 10*time.Minute ||
			!strings.Contains(r.Reply.Text, "in time") {
			t.Errorf("%s after %s: %s", r.Class, time.Since(begun), r.Reply)
		}
	})
}

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Latency: 5 * time.Second})
		u, _ := connected(t, fake, nil)
		s, late := reserve(t, u), reserve(t, u)
		done := make(chan mail.Result, 1)
		go func() { done <- s.Send(t.Context(), to(t, "", "a@example.org"))[0] }()
		synctest.Wait()
		late.Release()
		begun := time.Now()
		if err := u.Close(t.Context()); err != nil || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		if r := <-done; r.Class != mail.Delivered {
			t.Errorf("%s", r.Class)
		}
		if s, until := u.Reserve(time.Now(), ""); s != nil || !until.IsZero() {
			t.Error("a place at a closed upstream")
		}
	})
}

func TestCloseCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{Latency: time.Hour})
		u, _ := connected(t, fake, nil)
		done := make(chan mail.Result, 1)
		go func() {
			s, _ := u.Reserve(time.Now(), "")
			done <- s.Send(t.Context(), to(t, "", "a@example.org"))[0]
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := u.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if r := <-done; r.Class != mail.Deferral {
			t.Errorf("%s", r.Class)
		}
	})
}
