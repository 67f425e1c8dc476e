package graph

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

func wantBrokenOff(t *testing.T, fake *fakeprovider.Graph, u *Upstream, r mail.Result) {
	t.Helper()
	if r.Class != mail.Deferral || r.Uncertain || r.Reply != upstream.ReplyLease ||
		!errors.Is(r.Err, upstream.ErrLease) {
		t.Errorf("got %s uncertain=%v: %s (%v)", r.Class, r.Uncertain, r.Reply, r.Err)
	}
	if n, drafts := len(fake.Arrivals()), len(fake.Drafts()); n != 0 || drafts != 0 {
		t.Errorf("%d messages were sent, %d drafts are left", n, drafts)
	}
	if status(u) != upstream.Ready {
		t.Errorf("the mailbox is %s", status(u))
	}
}

// hooked runs a function before each request whose path ends so.
type hooked struct {
	http.Handler
	path string
	hook func()
}

func (h hooked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, h.path) {
		h.hook()
	}
	h.Handler.ServeHTTP(w, r)
}

// lease is one that a test ends.
type lease struct{ over atomic.Bool }

func (l *lease) left() time.Duration {
	if l.over.Load() {
		return 30 * time.Second // too little
	}
	return 5 * time.Minute
}

func TestNoRequestWithoutLease(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	tx := to(t, "To: zoe@example.net\r\n", "zoe@example.net")
	var l lease
	l.over.Store(true)
	tx.Left = l.left
	wantBrokenOff(t, fake, u, only(t, send(t, u, tx)))
	if n := fake.Requests(); n != 0 {
		t.Errorf("%d requests", n)
	}
	tx.Left = nil
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
		t.Errorf("without a lease %s: %s", r.Class, r.Reply)
	}
}

// The lease may run out while the connection is made, and between two parts of a message.
func TestNoEndOfARequestWithoutLease(t *testing.T) {
	for _, size := range []int{100, 3 * block} {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
		var l lease
		u, _ := connected(t, fake, func(o *Options) {
			o.Transport = testkit.Transport(hooked{fake, "/sendMail", func() { l.over.Store(true) }})
		})
		tx := to(t, "To: zoe@example.net\r\n", "zoe@example.net")
		tx.Content = mail.BytesContent(text("To: zoe@example.net\r\n") + strings.Repeat("line\r\n", size/6))
		tx.Left = l.left
		wantBrokenOff(t, fake, u, only(t, send(t, u, tx)))
		tx.Left = nil
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
			t.Errorf("the next time %s: %s", r.Class, r.Reply)
		}
	}
}

// A draft whose files have been uploaded is not sent, and deleted.
func TestNoDraftIsSentWithoutLease(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	var l lease
	u, _ := uploading(t, fake, func(o *Options) {
		o.Transport = testkit.Transport(hooked{fake, "/createUploadSession", func() { l.over.Store(true) }})
	})
	tx, _ := scan(t)
	tx.Left = l.left
	wantBrokenOff(t, fake, u, only(t, send(t, u, tx)))
	tx.Left = nil
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered || len(fake.Arrivals()) != 1 {
		t.Errorf("the next time %s: %s", r.Class, r.Reply)
	}
}

// No token and no network while we were stopped: that is nobody's fault.
func TestLeaseExcusesTheToken(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, k := connected(t, fake, nil)
	k.err = errors.New("cannot be reached in time")
	tx := to(t, "To: zoe@example.net\r\n", "zoe@example.net")
	tx.Left = func() time.Duration { return 0 }
	wantBrokenOff(t, fake, u, only(t, send(t, u, tx)))
}
