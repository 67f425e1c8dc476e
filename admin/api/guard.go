package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"postern/operate"
)

// How long a request may take, and how long its answer may be written.
const (
	usualTime  = 25 * time.Second
	importTime = 5 * time.Minute
	streamTime = 10 * time.Minute
)

// guard stands before a route: it looks at who asks before it reads anything of the body, reads the body within its
// bounds, and keeps the answer back until it is whole.
func (s *server) guard(to *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by, _ := operate.ActorOf(r.Context())
		if err := to.admits(by); err != nil {
			s.refused(r.Context(), by, to, err)
			p, _ := problemOf(err)
			p.write(w)
			return
		}
		for name, values := range r.URL.Query() {
			if len(values) > 1 {
				invalid.problem(fmt.Sprintf("%.60q is there twice.", name)).write(w)
				return
			}
		}
		ctx, cancel := to.bounded(r.Context(), w)
		defer cancel()
		r = r.WithContext(context.WithValue(ctx, requestKey{}, r.URL))
		if to.streams || !to.changes() {
			s.answer(w, r, to, next)
			return
		}
		if to.table { // whose body is large: one at a time is read
			select {
			case s.imports <- struct{}{}:
				defer func() { <-s.imports }()
			default:
				w.Header().Set("Retry-After", retryAfter)
				busy.problem("Another import is under way: try again when it has ended.").write(w)
				return
			}
		}
		body, p := readBody(w, r, to)
		if p != nil {
			p.write(w)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if key := r.Header.Get("Idempotency-Key"); key != "" {
			s.answers.once(w, r, by, to, body, next)
			return
		}
		s.answer(w, r, to, next)
	})
}

// refused records that somebody may not use a route. Who only lacks the second factor comes again with it.
func (s *server) refused(ctx context.Context, by operate.Actor, to *route, why error) {
	if errors.Is(why, operate.ErrStrong) {
		return
	}
	for _, op := range to.needs {
		if err := s.Operations.Audit.Refused(ctx, by, op); err != nil {
			s.Logger.Error("the API cannot record a refusal", "by", by.Name, "operation", op.Name, "err", err)
		}
	}
}

// admits refuses whom none of a route's operations would let in.
func (to *route) admits(by operate.Actor) (err error) {
	for _, op := range to.needs {
		may := by.May(op)
		if may == nil {
			return nil
		}
		err = errors.Join(err, may)
	}
	return err
}

// changes reports whether a route may change anything.
func (to *route) changes() bool { return to.method != http.MethodGet }

// limit is how long a request may take.
func (to *route) limit() time.Duration {
	switch {
	case to.table, to.slow:
		return importTime
	case to.streams:
		return streamTime
	}
	return usualTime
}

// bounded limits how long a request takes. What changes something does not end because its caller went away.
func (to *route) bounded(ctx context.Context, w http.ResponseWriter) (context.Context, context.CancelFunc) {
	limit := to.limit()
	if limit > usualTime { // longer than the server lets answers be written
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(limit + usualTime))
		_ = c.SetReadDeadline(time.Now().Add(limit + usualTime)) // its end would end the request's context
	}
	if to.changes() {
		ctx = context.WithoutCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// answer serves a request; only a stream is not kept back until it is whole.
func (s *server) answer(w http.ResponseWriter, r *http.Request, to *route, next http.Handler) {
	if to.streams {
		next.ServeHTTP(w, r)
		return
	}
	answer := newRecorder()
	next.ServeHTTP(answer, r)
	answer.send(w)
}

type requestKey struct{}

// nextPage is the Link field (RFC 8288) that names the page behind a cursor; "" if there is none.
func nextPage(ctx context.Context, next string) string {
	u, ok := ctx.Value(requestKey{}).(*url.URL)
	if !ok || next == "" {
		return ""
	}
	query := u.Query()
	query.Set("cursor", next)
	return "<" + u.EscapedPath() + "?" + query.Encode() + `>; rel="next"`
}

// recorder is an answer that is kept back.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: http.Header{}} }

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// send gives the answer out.
func (r *recorder) send(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.status == busy.status {
		w.Header().Set("Retry-After", retryAfter)
	}
	if r.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(r.body.Len()))
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes()) // whoever asked may be gone
}
