package graph

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream/account"
)

// endless is a message that is nowhere: a head, then lines of base64 as often as they are wanted, then a tail.
type endless struct {
	head, tail string
	lines      int
}

var endlessLine = base64.StdEncoding.EncodeToString(make([]byte, 57)) + "\r\n"

func (e *endless) Size() int64 {
	return int64(len(e.head) + e.lines*len(endlessLine) + len(e.tail))
}
func (e *endless) Bytes() []byte { return nil }
func (e *endless) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader(e.head), &repeated{left: e.lines}, strings.NewReader(e.tail))),
		nil
}

type repeated struct {
	left int
	rest string
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.rest == "" {
		if r.left == 0 {
			return 0, io.EOF
		}
		r.left--
		r.rest = endlessLine
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// swallower says yes to everything, keeps nothing, and weighs the heap at each request.
type swallower struct {
	received int64
	heaviest uint64
}

func (s *swallower) RoundTrip(r *http.Request) (*http.Response, error) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	s.heaviest = max(s.heaviest, m.HeapAlloc)
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return nil, err
	}
	status, body := http.StatusCreated, `{"id":"d","uploadUrl":"https://outlook.office.com/s"}`
	var from, to, size int64
	if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); err == nil {
		s.received += n
		body = fmt.Sprintf(`{"nextExpectedRanges":["%d"]}`, to+1)
		if to+1 < size {
			status = http.StatusOK
		}
	}
	if strings.HasSuffix(r.URL.Path, "/send") {
		status = http.StatusAccepted
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
		Request: r}, nil
}

// A message of 60 MB is never in memory, nor is its file: what there is at any request is some chunks.
func TestUploadsHoldLittle(t *testing.T) {
	s := &swallower{}
	k := &tokens{}
	o := options(k)
	o.Transport, o.LargeMail, o.MaxMessageSize = s, UploadLarge, MaxUploadSize
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	head := "From: " + office + "\r\nContent-Type: multipart/mixed; " +
		"boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf; " +
		"name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	tx := to(t, "", "a@example.org")
	tx.Content = &endless{head: head, tail: "--b--\r\n", lines: 60_000_000 / len(endlessLine)}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	if want := int64(60_000_000/len(endlessLine)) * 57; s.received != want {
		t.Errorf("%d octets arrived, want %d", s.received, want)
	}
	if grown := int64(s.heaviest) - int64(m.HeapAlloc); grown > 4*3_276_800 /* a chunk */ {
		t.Errorf("%d octets were held", grown)
	}
}

// parked says yes to everything, one request after the other, when it is let.
type parked struct {
	swallower
	waiting atomic.Int32
	let     chan struct{}
	one     sync.Mutex
}

func (p *parked) RoundTrip(r *http.Request) (*http.Response, error) {
	p.waiting.Add(1)
	<-p.let
	p.one.Lock()
	defer p.one.Unlock()
	return p.swallower.RoundTrip(r)
}

// However many mailboxes have large mail, what it holds is bounded; the others wait, and leave when they must.
func TestLargeMailOfManyMailboxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &parked{let: make(chan struct{})}
		k := &tokens{}
		o := options(k)
		o.Transport, o.LargeMail, o.MaxMessageSize = p, UploadLarge, DefaultUploadSize
		u, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		tx := to(t, "", "a@example.org")
		tx.Content = &endless{head: "From: " + office +
			"\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n",
			lines: 4_000_000 / len(endlessLine)}
		results := make(chan mail.Class, 100)
		start := func(ctx context.Context, i int) {
			s, _ := u.Reserve(time.Now(), fmt.Sprintf("person%d@example.com", i))
			go func() { results <- s.Send(ctx, tx)[0].Class }()
		}
		const atOnce = 8 // see package large
		for i := range atOnce + 3 {
			start(t.Context(), i)
		}
		synctest.Wait()
		leaving, leave := context.WithCancel(t.Context())
		start(leaving, 99)
		synctest.Wait()
		if n := p.waiting.Load(); n != atOnce {
			t.Fatalf("%d at a time", n)
		}
		leave()
		if c := <-results; c != mail.Deferral {
			t.Errorf("one that must leave: %s", c)
		}
		close(p.let)
		for range atOnce + 3 {
			if c := <-results; c != mail.Delivered {
				t.Errorf("one that has waited: %s", c)
			}
		}
	})
}

// Files go to another host than mail. When that cannot be reached, large mail waits, and small mail does not.
func TestUploadHostOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{UploadHost: "outlook.office.com"})
		w := &walled{rt: testkit.Transport(fake), wall: true}
		u, _ := uploading(t, fake, func(o *Options) { o.Transport = w })
		tx := largeMail(t, "", []string{"a@example.org"}, textPart("text/plain", "hello"),
			file8("application/pdf", "scan.pdf", octets(3_000_001)))
		r := only(t, send(t, u, tx))
		if r.Class != mail.BackPressure || r.Uncertain || !strings.Contains(r.Reply.Text,
			"outlook.office.com cannot be reached") || !strings.Contains(r.Note, "firewall") ||
			len(fake.Drafts()) != 0 {
			t.Errorf("%s: %s; %s", r.Class, r.Reply, r.Note)
		}
		asked := fake.Requests()
		if r := only(t, send(t, u, tx)); r.Class != mail.BackPressure || r.RetryAfter <= 0 ||
			!strings.Contains(r.Note, "firewall") || fake.Requests() != asked {
			t.Errorf("%s after %d requests: %s", r.Class, fake.Requests()-asked, r.Reply)
		}
		if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered ||
			status(u) != upstreamReady {
			t.Errorf("small mail: %s", r.Reply)
		}
		w.wall = false
		time.Sleep(account.BackoffFirst)
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
			t.Errorf("afterwards: %s", r.Reply)
		}
	})
}

// walled lets nobody out to where files go.
type walled struct {
	rt   http.RoundTripper
	wall bool
}

func (w *walled) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.wall && r.URL.Host == "outlook.office.com" {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection timed out")}
	}
	return w.rt.RoundTrip(r)
}

// Whether a draft may have been sent depends on whether the request of its sending went out.
func TestUploadAndTheLastRequest(t *testing.T) {
	for name, c := range map[string]struct {
		fault     *fakeprovider.GraphFault
		refuse    int32 // the connection that is not made
		uncertain bool
		class     mail.Class
	}{
		"no connection": {nil, 4, false, mail.BackPressure},
		"not taken":     {&fakeprovider.GraphFault{Step: fakeprovider.StepSend, Drop: true}, 0, true, mail.Deferral},
		"taken": {&fakeprovider.GraphFault{Step: fakeprovider.StepSend, Drop: true, AfterWork: true}, 0, true,
			mail.Deferral},
		"nothing is lost": {nil, 0, false, mail.Delivered},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			base, ca := listening(t, fake, soon, "127.0.0.1")
			if c.fault != nil {
				fake.Fail(*c.fault)
			}
			var dials atomic.Int32
			rt := &http.Transport{
				DisableKeepAlives: true, // so that each request dials
				TLSClientConfig:   &tls.Config{RootCAs: ca.Pool},
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					if dials.Add(1) == c.refuse {
						return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route to host")}
					}
					return new(net.Dialer).DialContext(ctx, network, address)
				},
			}
			u, _ := uploading(t, fake, func(o *Options) { o.BaseURL, o.Transport = base, rt })
			tx := largeMail(t, "", []string{"a@example.org"}, textPart("text/plain", "hello"),
				file8("application/pdf", "scan.pdf", octets(3_000_001)))
			r := only(t, send(t, u, tx))
			if r.Class != c.class || r.Uncertain != c.uncertain || len(fake.Drafts()) != 0 {
				t.Errorf("%s, uncertain %v, %d drafts: %s", r.Class, r.Uncertain, len(fake.Drafts()), r.Reply)
			}
			if want := map[bool]int{true: 1}[c.class == mail.Delivered || c.fault != nil &&
				c.fault.AfterWork]; len(fake.Arrivals()) != want {
				t.Errorf("%d arrivals", len(fake.Arrivals()))
			}
		})
	}
}
