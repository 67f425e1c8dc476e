package testkit

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
)

// Transport reaches a handler without a socket, also inside a testing/synctest bubble. Whatever the URL says, it is
// this handler that answers.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ http.Handler }

// RoundTrip runs the handler beside the caller, who goes when its context ends. http.ErrAbortHandler ends the
// connection.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := context.Cause(r.Context()); err != nil { // as in net/http, nobody hears of it
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	in := r.Clone(ctx)
	in.Host = r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	out, done := httptest.NewRecorder(), make(chan error, 1)
	go func() {
		defer cancel()
		defer func() {
			switch v := recover(); v {
			case nil:
				done <- nil
			case http.ErrAbortHandler:
				done <- io.ErrUnexpectedEOF
			default:
				panic(v)
			}
		}()
		t.ServeHTTP(out, in)
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		resp := out.Result()
		resp.Request, resp.ContentLength = r, int64(out.Body.Len())
		return resp, nil
	case <-r.Context().Done():
		cancel()
		return nil, context.Cause(r.Context())
	}
}
