package fakeprovider

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/internal/periodic"
)

// Access is what a token is good for.
type Access uint8

// The answers to a token.
const (
	AccessInvalid Access = iota // 401: expired, or for somebody else
	AccessDenied                // 403: good, but not for this mailbox
	AccessGranted
)

// GraphOptions configure the fake Graph. The zero value takes any mail with any token.
type GraphOptions struct {
	// Token checks the bearer token for a mailbox; nil grants everything but the empty one.
	Token func(token, mailbox string) Access
	// Mailboxes that exist; empty: any. SendAs are addresses that a mailbox may use in From beside its own; nil: any.
	Mailboxes []string
	SendAs    map[string][]string

	// ReadWrite checks the bearer token for making drafts; nil: as Token does.
	ReadWrite func(token, mailbox string) Access

	// Read checks the bearer token for reading Sent Items; nil: nobody may, as with Mail.Send alone.
	Read func(token, mailbox string) Access
	// SentLate is how long a message takes to show in Sent Items.
	SentLate time.Duration

	MaxRequest  int64         // octets of one request; 0 is 4 MB
	MaxMessage  int64         // octets of the files of a draft; 0 is 35 MB
	SessionLife time.Duration // of an upload session; 0 is an hour
	UploadHost  string        // of upload sessions; empty: the host that was asked
	// Meet holds the first so many requests of each mailbox until they are all there, so that a test knows how many a
	// client has under way. Met tells whether they came.
	Meet        int
	Concurrency int           // requests at a time for each mailbox; 0 is 4
	PerMinute   int           // messages for each mailbox; 0: no limit
	PerDay      int           // messages for each mailbox; 0: no limit
	Latency     time.Duration // of every answer

	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// GraphFault is how the fake misbehaves.
type GraphFault struct {
	Mailbox string // empty: any
	Step    string // one of the Step constants; empty: any
	// Times is how often; 0 is until the faults are set anew.
	Times int
	// Delay goes before whatever comes.
	Delay time.Duration
	// Status is answered, with Code and Message as Graph's error, or with Body if Code is empty; RetryAfter in
	// seconds, or any text. Status 202 answers so without taking the message, unless AfterWork is set.
	Status        int
	Code, Message string
	Body          string
	RetryAfter    string
	// Drop closes the connection without an answer.
	Drop bool
	// AfterWork lets the message be taken before the fault shows.
	AfterWork bool
	// Early does not read the request.
	Early bool
	// Keep is how many octets of a StepPut are taken before the fault shows.
	Keep int
}

// The requests that a GraphFault can be about.
const (
	StepSendMail = "sendMail"
	StepDraft    = "draft"   // POST messages
	StepAttach   = "attach"  // POST attachments
	StepSession  = "session" // POST attachments/createUploadSession
	StepPut      = "put"     // PUT to an upload session
	StepStatus   = "status"  // GET of an upload session
	StepSend     = "send"    // POST messages/{id}/send
	StepDelete   = "delete"  // DELETE messages/{id}
	StepSent     = "sent"    // GET mailFolders/sentitems/messages
)

// GraphArrival is a message that was taken.
type GraphArrival struct {
	Mailbox    string
	Recipients []string    // To, Cc and Bcc, each once, lower case
	MIME       []byte      // as it came, with Bcc; nil for a draft
	Draft      *GraphDraft // that was sent; nil for MIME
	RequestID  string
	At         time.Time
}

// Graph is a fake of Microsoft Graph's sendMail in MIME, and of drafts with upload sessions. It is an http.Handler;
// Listen serves it on loopback.
type Graph struct {
	o GraphOptions

	mu       sync.Mutex // guards what follows
	arrivals []GraphArrival
	faults   []GraphFault
	running  map[string]int
	most     map[string]int
	taken    map[string][]time.Time
	requests int
	statuses map[int]int
	drafts   map[string]*GraphDraft
	sessions map[string]*uploadSession
	serial   int
	tables   map[string]*table
}

// NewGraph makes a fake.
func NewGraph(o GraphOptions) *Graph {
	o.MaxRequest, o.MaxMessage = cmp.Or(o.MaxRequest, 4_000_000), cmp.Or(o.MaxMessage, 35_000_000)
	o.Concurrency, o.SessionLife = cmp.Or(o.Concurrency, 4), cmp.Or(o.SessionLife, time.Hour)
	if o.Now == nil {
		o.Now = time.Now
	}
	always := func(a Access) func(token, mailbox string) Access { return func(string, string) Access { return a } }
	if o.Token == nil {
		o.Token = always(AccessGranted)
	}
	if o.ReadWrite == nil {
		o.ReadWrite = o.Token
	}
	if o.Read == nil {
		o.Read = always(AccessDenied)
	}
	return &Graph{
		o: o, running: map[string]int{}, most: map[string]int{}, taken: map[string][]time.Time{},
		statuses: map[int]int{}, drafts: map[string]*GraphDraft{}, sessions: map[string]*uploadSession{},
		tables: map[string]*table{},
	}
}

// Fail sets the faults, in order: the first that fits a request is what it meets.
func (g *Graph) Fail(faults ...GraphFault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = faults
}

// Arrivals is what was taken, in order.
func (g *Graph) Arrivals() []GraphArrival {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.arrivals)
}

// Requests is how many came, and Answered how many got a status.
func (g *Graph) Requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests
}

// Answered is how many requests got a status.
func (g *Graph) Answered(status int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.statuses[status]
}

// MostAtOnce is the highest number of requests at a time that a mailbox has seen, refused ones included.
func (g *Graph) MostAtOnce(mailbox string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most[strings.ToLower(mailbox)]
}

// Listen serves on a loopback port of the system's choice. The base URL is Running.URL + "/v1.0".
func (g *Graph) Listen(conf *tls.Config) (*Running, error) { return listen(g, conf) }

// graphReply is an answer of Graph's: a body, or a code and a message as an error.
type graphReply struct {
	status        int
	body          any
	code, message string
	retryAfter    string
}

func refuse(status int, code, message string) *graphReply {
	return &graphReply{status: status, code: code, message: message}
}

// ServeHTTP is the whole fake.
func (g *Graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := fmt.Sprintf("00000000-0000-4000-8000-%012x", g.count())
	w.Header().Set("request-id", id)
	if r.Method == http.MethodGet && strings.Trim(r.URL.Path, "/") == "v1.0" { // the service root needs no token
		g.answer(w, id, &graphReply{status: http.StatusOK, body: map[string]any{"value": []any{}}})
		return
	}
	c, ok := g.route(r)
	if !ok {
		g.answer(w, id, refuse(404, "ResourceNotFound", "Resource could not be discovered."))
		return
	}
	c.id = id
	free, said := g.enter(c.mailbox)
	defer free()
	f, failing := g.meet(c.mailbox, c.step)
	if failing && periodic.Sleep(r.Context(), f.Delay) != nil ||
		periodic.Sleep(r.Context(), g.o.Latency) != nil || !g.gather(r, c.mailbox) {
		panic(http.ErrAbortHandler)
	}
	if failing && f.Keep > 0 {
		g.keep(r, c, f.Keep)
	}
	if failing && !f.AfterWork {
		g.play(w, r, id, f)
		return
	}
	if said == nil && c.access != nil {
		said = g.authorize(r, c)
	}
	if said == nil {
		said = c.run(r, c)
	}
	if failing && said.code == "" {
		g.play(w, r, id, f)
		return
	}
	g.answer(w, id, said)
}

// call is a request that was understood.
type call struct {
	step, mailbox string
	item          string // the draft or the session
	id            string // of the request
	access        func(token, mailbox string) Access
	run           func(*http.Request, call) *graphReply
}

// route finds what is asked: POST /v1.0/users/{mailbox}/sendMail and what graph_drafts.go has.
func (g *Graph) route(r *http.Request) (call, bool) {
	if c, ok := g.routeSession(r); ok {
		return c, true
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1.0/users/")
	mailbox, path, slash := strings.Cut(path, "/")
	if !ok || !slash || mailbox == "" {
		return call{}, false
	}
	c := call{mailbox: strings.ToLower(mailbox)}
	switch r.Method + " " + path {
	case "POST sendMail":
		c.step, c.access, c.run = StepSendMail, g.o.Token, g.sendMail
	case "GET mailFolders/sentitems/messages":
		c.step, c.access, c.run = StepSent, g.o.Read, g.sentItems
	default:
		return g.routeDraft(r, c, path)
	}
	return c, true
}

func (g *Graph) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests++
	return g.requests
}

func (g *Graph) tally(status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.statuses[status]++
}

// enter counts a request of a mailbox among those that run.
func (g *Graph) enter(mailbox string) (func(), *graphReply) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running[mailbox]++
	g.most[mailbox] = max(g.most[mailbox], g.running[mailbox])
	var over *graphReply
	if g.running[mailbox] > g.o.Concurrency {
		over = refuse(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
		over.retryAfter = "1"
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running[mailbox]--
	}, over
}

func (g *Graph) meet(mailbox, step string) (GraphFault, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.faults {
		f := &g.faults[i]
		if f.Mailbox != "" && !strings.EqualFold(f.Mailbox, mailbox) || f.Step != "" && f.Step != step || f.Times < 0 {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		return *f, true
	}
	return GraphFault{}, false
}

func (g *Graph) play(w http.ResponseWriter, r *http.Request, id string, f GraphFault) {
	if !f.Early {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.Code != "" {
		g.answer(w, id, &graphReply{status: f.Status, code: f.Code, message: f.Message, retryAfter: f.RetryAfter})
		return
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	g.tally(f.Status)
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body)
}

func (g *Graph) answer(w http.ResponseWriter, id string, said *graphReply) {
	g.tally(said.status)
	if said.retryAfter != "" {
		w.Header().Set("Retry-After", said.retryAfter)
	}
	switch {
	case said.code != "":
		inner := map[string]any{"date": "2026-09-01T08:00:00", "request-id": id, "client-request-id": id}
		writeJSON(w, said.status, map[string]any{
			"error": map[string]any{"code": said.code, "message": said.message, "innerError": inner},
		})
	case said.body != nil:
		writeJSON(w, said.status, said.body)
	default:
		w.WriteHeader(said.status)
	}
}
