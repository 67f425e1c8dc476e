// Package api serves /api/v1: what package operate has, as JSON, described by OpenAPI 3.1. It decides nothing itself:
// who asks is in the request's context (operate.ActorOf), whether they may is operate's answer, and so is what is done.
//
// Failure semantics: whatever goes wrong is a problem (RFC 9457) whose type says what kind of trouble it is; of trouble
// of ours the caller learns a reference, and the log has the rest. What changes something goes on when its caller goes
// away. With an Idempotency-Key a request is done once: its answer is kept for a day, sealed; an answer with a password
// is not kept, and neither is a refusal, which changed nothing.
//
// Bounds: a body has 1 MB at most, a table of accounts 16 MB, an answer of a list 500 rows; a request may take 25
// seconds, an import 5 minutes and runs alone.
package api

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postern/admin/access"
	"postern/operate"
)

// Prefix is where the API is.
const Prefix = "/api/v1"

// Options are what the API needs.
type Options struct {
	Operations *operate.Operations
	Access     *access.Access   // who may use the console and the API
	Answers    Answers          // of requests with an Idempotency-Key: the store
	Logger     *slog.Logger     // nil: none
	Now        func() time.Time // nil: time.Now
}

// server is the API.
type server struct {
	Options
	mux     *http.ServeMux
	routes  []route
	spec    []byte
	answers *answering
	imports chan struct{} // one token: an import is under way
}

// Handler returns the API. It expects whole paths, which begin with Prefix, and who asks in the request's context.
func Handler(o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return newServer(o)
}

func newServer(o Options) *server {
	s := &server{Options: o, mux: http.NewServeMux(), imports: make(chan struct{}, 1)}
	s.answers = &answering{store: o.Answers, now: o.Now, log: o.Logger, running: map[[32]byte]bool{}}
	s.routes = s.table()
	adapter := &guardedMux{ServeMux: s.mux, s: s}
	config := huma.Config{
		OpenAPI:                      s.description(),
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{toProblem},
	}
	api := humago.NewWithPrefix(adapter, Prefix, config)
	for i := range s.routes {
		adapter.route = &s.routes[i]
		s.routes[i].register(api, s.routes[i].operation(api))
	}
	s.spec = render(api.OpenAPI())
	return s
}

// guardedMux puts the guard of each route before it.
type guardedMux struct {
	*http.ServeMux
	s     *server
	route *route // that is being registered
}

// HandleFunc implements humago.Mux.
func (m *guardedMux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, m.s.guard(m.route, http.HandlerFunc(h)))
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	defer s.recovered(w, r)
	by, ok := operate.ActorOf(r.Context())
	if !ok || by.Channel != operate.Console && by.Channel != operate.API {
		h.Set("WWW-Authenticate", `Bearer realm="postern"`)
		unauthenticated.problem("Log in to the console, or send a token: Authorization: Bearer pst_…").write(w)
		return
	}
	// A browser sends the session's cookie with whatever another site makes it ask for.
	if by.Channel == operate.Console && crossOrigin().Check(r) != nil {
		foreign.problem("This request was made by a page of another site.").write(w)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.nowhere(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

var crossOrigin = sync.OnceValue(http.NewCrossOriginProtection)

// nowhere says that there is no such path, or no such method there.
func (s *server) nowhere(w http.ResponseWriter, r *http.Request) {
	asked := newRecorder()
	s.mux.ServeHTTP(asked, r)
	if allow := asked.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		wrongMethod.problem("There is " + allow + " here.").write(w)
		return
	}
	noSuchPath.problem("The API has no such path; " + Prefix + "/openapi.json lists them all.").write(w)
}

// recovered answers a request whose handling panicked.
func (s *server) recovered(w http.ResponseWriter, r *http.Request) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler { //nolint:errorlint // it is a value
		panic(fault)
	}
	p := internal.problem("")
	s.Logger.Error("the API panicked", "ref", p.refer(), "method", r.Method, "path", r.URL.Path, "panic", fault,
		"stack", string(debug.Stack()))
	p.write(w)
}
