package graph

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// greedy answers at once and goes on reading, as HTTP/2 may.
type greedy struct{ done chan error }

func (g *greedy) RoundTrip(r *http.Request) (*http.Response, error) {
	buf := make([]byte, 10)
	if _, err := r.Body.Read(buf); err != nil {
		return nil, err
	}
	go func() {
		for {
			if _, err := r.Body.Read(buf); err != nil {
				g.done <- err
				return
			}
		}
	}()
	return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{}, Body: http.NoBody}, nil
}

// When Send is over nobody reads the content any more: its memory and its file are the caller's again.
func TestContentIsLeftAlone(t *testing.T) {
	g := &greedy{done: make(chan error, 1)}
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), func(o *Options) { o.Transport = g })
	octets := []byte(text("") + strings.Repeat("line\r\n", 400_000))
	tx := to(t, "", "a@example.org")
	tx.Content = mail.BytesContent(octets)
	if r := only(t, send(t, u, tx)); r.Class != mail.BackPressure {
		t.Errorf("%s", r.Class)
	}
	clear(octets) // the race detector watches
	if err := <-g.done; !errors.Is(err, errReleased) {
		t.Errorf("the reader ended with %v", err)
	}
}

// The encoder gives the same octets in whatever pieces they are asked for.
func TestEncoder(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, block - 1, block, block + 1, 2*block + 2} {
		body := strings.Repeat("x", n)
		p := &payload{head: []byte("head\r\n"), content: mail.BytesContent("gone" + body), body: 4}
		var first string
		for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader,
			iotest.DataErrReader} {
			e, err := p.open()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(wrap(e))
			if err != nil || !e.gone.Load() || int64(len(got)) != p.encoded() || first != "" && first != string(got) {
				t.Errorf("%d octets: %v, %d of %d", n, err, len(got), p.encoded())
			}
			first = string(got)
		}
	}
}

// An alert of TLS behind the whole request says nothing about the message.
func TestAlertBehindTheRequestIsUncertain(t *testing.T) {
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), nil)
	alert := fmt.Errorf("Post: %w", &net.OpError{Op: "remote error", Err: tls.AlertError(80)})
	if f := u.lost(t.Context(), alert, true); !f.uncertain || f.class != mail.Deferral {
		t.Errorf("%s, uncertain %v", f.class, f.uncertain)
	}
	if f := u.lost(t.Context(), alert, false); f.uncertain || f.class != mail.AccountFault || f.stage != mail.StageTLS {
		t.Errorf("%s at %s", f.class, f.stage)
	}
}

// instant takes everything.
type instant struct{}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: http.StatusAccepted, Header: http.Header{}, Body: http.NoBody}, err
}

func BenchmarkSend(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			u, _ := connected(b, fakeprovider.NewGraph(fakeprovider.GraphOptions{}),
				func(o *Options) { o.Transport = instant{} })
			tx := to(b, "To: a@example.org\r\n", "a@example.org", "blind@example.org")
			tx.Content = mail.BytesContent(text("To: a@example.org\r\n") + strings.Repeat("0123456789\r\n", size/12))
			b.ReportAllocs()
			for b.Loop() {
				if r := send(b, u, tx); r[0].Class != mail.Delivered {
					b.Fatal(r[0].Reply)
				}
			}
		})
	}
}
