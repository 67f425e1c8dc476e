package fakeprovider

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
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
	// Token judges the bearer token for a mailbox; nil grants everything but the empty one.
	Token func(token, mailbox string) Access
	// Mailboxes that exist; empty: any. SendAs are addresses that a mailbox may use in From beside its own; nil: any.
	Mailboxes []string
	SendAs    map[string][]string

	// ReadWrite judges the bearer token for making drafts; nil: as Token does.
	ReadWrite func(token, mailbox string) Access

	// Read judges the bearer token for reading Sent Items; nil: nobody may, as with Mail.Send alone.
	Read func(token, mailbox string) Access
	// SentLate is how long a message takes to show in Sent Items.
	SentLate time.Duration

	MaxRequest  int64         // octets of one request; 0 is 4 MB
	MaxMessage  int64         // octets of the files of a draft; 0 is 35 MB
	SessionLife time.Duration // of an upload session; 0 is an hour
	UploadHost  string        // of upload sessions; empty: the host that was asked
	// Meet holds the first so many requests of each mailbox until they are all there, so that a test knows how many a client has
	// under way. Met tells whether they came.
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
	// Status is answered, with Code and Message as Graph's error, or with Body if Code is empty; RetryAfter in seconds, or any
	// text. Status 202 answers so without taking the message, unless AfterWork is set.
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

// Graph is a fake of Microsoft Graph's sendMail in MIME, and of drafts with upload sessions. It is an http.Handler; Listen serves
// it on loopback.
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
	if o.MaxRequest == 0 {
		o.MaxRequest = 4_000_000
	}
	if o.Concurrency == 0 {
		o.Concurrency = 4
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 35_000_000
	}
	if o.SessionLife == 0 {
		o.SessionLife = time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Graph{o: o, running: map[string]int{}, most: map[string]int{}, taken: map[string][]time.Time{}, statuses: map[int]int{},
		drafts: map[string]*GraphDraft{}, sessions: map[string]*uploadSession{}, tables: map[string]*table{}}
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

// graphError is an answer of Graph's.
type graphError struct {
	status        int
	code, message string
	retryAfter    string
}

func (e *graphError) Error() string { return e.code + ": " + e.message }

// ServeHTTP is the whole fake.
func (g *Graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := fmt.Sprintf("00000000-0000-4000-8000-%012x", g.count())
	w.Header().Set("request-id", id)
	if r.Method == http.MethodGet && strings.Trim(r.URL.Path, "/") == "v1.0" { // the service root needs no token
		g.answer(w, http.StatusOK, map[string]any{"value": []any{}})
		return
	}
	c, ok := g.route(r)
	if !ok {
		g.fail(w, id, &graphError{404, "ResourceNotFound", "Resource could not be discovered.", ""})
		return
	}
	c.id = id
	free, err := g.enter(c.mailbox)
	defer free()
	f, failing := g.meet(c.mailbox, c.step)
	if failing && !pause(r, f.Delay) || !pause(r, g.o.Latency) || !g.gather(r, c.mailbox) {
		panic(http.ErrAbortHandler)
	}
	if failing && f.Keep > 0 {
		g.keep(r, c, f.Keep)
	}
	if failing && !f.AfterWork {
		g.play(w, r, id, f)
		return
	}
	var said graphReply
	if err == nil {
		said, err = c.run(r, c)
	}
	switch {
	case failing && err == nil:
		g.play(w, r, id, f)
	case err != nil:
		g.fail(w, id, err)
	case said.body != nil:
		g.answer(w, said.status, said.body)
	default:
		g.tally(said.status)
		w.WriteHeader(said.status)
	}
}

// call is a request that was understood.
type call struct {
	step, mailbox string
	item          string // the draft or the session
	id            string // of the request
	run           func(*http.Request, call) (graphReply, *graphError)
}

// graphReply is a good answer.
type graphReply struct {
	status int
	body   any
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
	if r.Method == http.MethodPost && path == "sendMail" {
		c.step, c.run = StepSendMail, g.sendMail
		return c, true
	}
	if r.Method == http.MethodGet && path == "mailFolders/sentitems/messages" {
		c.step, c.run = StepSent, g.sentItems
		return c, true
	}
	return g.routeDraft(r, c, path)
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
func (g *Graph) enter(mailbox string) (func(), *graphError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running[mailbox]++
	g.most[mailbox] = max(g.most[mailbox], g.running[mailbox])
	var err *graphError
	if g.running[mailbox] > g.o.Concurrency {
		err = &graphError{429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", "1"}
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running[mailbox]--
	}, err
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
		g.fail(w, id, &graphError{f.Status, f.Code, f.Message, f.RetryAfter})
		return
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	g.tally(f.Status)
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body)
}

func (g *Graph) fail(w http.ResponseWriter, id string, e *graphError) {
	if e.retryAfter != "" {
		w.Header().Set("Retry-After", e.retryAfter)
	}
	g.answer(w, e.status, map[string]any{"error": map[string]any{
		"code": e.code, "message": e.message, "innerError": map[string]any{"date": "2026-09-01T08:00:00", "request-id": id, "client-request-id": id},
	}})
}

func (g *Graph) answer(w http.ResponseWriter, status int, body any) {
	g.tally(status)
	writeJSON(w, status, body)
}

// sendMail goes through the checks in the order of the real one, as far as it is known: token, permission, mailbox, size,
// encoding, sender, recipients, limits.
func (g *Graph) sendMail(r *http.Request, c call) (graphReply, *graphError) {
	if err := g.authorize(r, c.mailbox, g.o.Token); err != nil {
		return graphReply{}, err
	}
	if contentType(r) != "text/plain" {
		return graphReply{}, &graphError{415, "RequestBodyRead", "The fake takes MIME only.", ""}
	}
	octets, err := g.mimeOf(r)
	if err != nil {
		return graphReply{}, err
	}
	a := GraphArrival{Mailbox: c.mailbox, MIME: octets, RequestID: c.id}
	if err := g.read(&a); err != nil {
		return graphReply{}, err
	}
	return graphReply{status: http.StatusAccepted}, g.take(a)
}

func contentType(r *http.Request) string {
	ct, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return ct
}

// mimeOf reads MIME in base64.
func (g *Graph) mimeOf(r *http.Request) ([]byte, *graphError) {
	raw, failed := g.body(r)
	if failed != nil {
		return nil, failed
	}
	octets, err := base64.StdEncoding.DecodeString(string(raw))
	if err != nil {
		return nil, &graphError{400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.", ""}
	}
	return octets, nil
}

// body reads a request within the limit.
func (g *Graph) body(r *http.Request) ([]byte, *graphError) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, g.o.MaxRequest+1))
	switch {
	case err != nil:
		return nil, &graphError{400, "BadRequest", "The request was cut.", ""}
	case int64(len(raw)) > g.o.MaxRequest:
		return nil, &graphError{413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.", ""}
	}
	return raw, nil
}

func (g *Graph) authorize(r *http.Request, mailbox string, judge func(token, mailbox string) Access) *graphError {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	access := AccessGranted
	switch {
	case !ok || token == "":
		access = AccessInvalid
	case judge != nil:
		access = judge(token, mailbox)
	}
	switch {
	case access == AccessInvalid:
		return &graphError{401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.", ""}
	case access == AccessDenied:
		return &graphError{403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.", ""}
	case len(g.o.Mailboxes) > 0 && !slices.ContainsFunc(g.o.Mailboxes, func(m string) bool { return strings.EqualFold(m, mailbox) }):
		return &graphError{404, "ErrorInvalidUser", "The requested user '" + mailbox + "' is invalid.", ""}
	}
	return nil
}

// read derives sender and recipients from the header, which is all that the real one has.
func (g *Graph) read(a *GraphArrival) *graphError {
	m, err := netmail.ReadMessage(strings.NewReader(string(a.MIME)))
	if err != nil {
		return &graphError{400, "ErrorMimeContentInvalid", "The MIME content is invalid.", ""}
	}
	from, err := m.Header.AddressList("From")
	if err != nil || g.o.SendAs != nil && !g.maySend(a.Mailbox, from) {
		return &graphError{403, "ErrorSendAsDenied", "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message.", ""}
	}
	for _, field := range []string{"To", "Cc", "Bcc"} {
		for _, to := range everybody(m.Header.Get(field)) {
			if !slices.Contains(a.Recipients, to) {
				a.Recipients = append(a.Recipients, to)
			}
		}
	}
	if len(a.Recipients) == 0 {
		return &graphError{400, "ErrorInvalidRecipients", "At least one recipient is not valid., A message can't be sent because it contains no recipients.", ""}
	}
	return nil
}

var likeAddress = regexp.MustCompile(`[^\s<>,;:"'()]+@[^\s<>,;:"'()]+`)

// everybody reads a list of addresses, and one that is none as the worst reader would: whatever looks like an address is one.
func everybody(value string) []string {
	var found []string
	list, err := netmail.ParseAddressList(value)
	if err != nil {
		found = likeAddress.FindAllString(value, -1)
	}
	for _, a := range list {
		found = append(found, a.Address)
	}
	for i := range found {
		found[i] = strings.ToLower(found[i])
	}
	return found
}

func (g *Graph) maySend(mailbox string, from []*netmail.Address) bool {
	for _, f := range from {
		same := func(s string) bool { return strings.EqualFold(s, f.Address) }
		if !same(mailbox) && !slices.ContainsFunc(g.o.SendAs[mailbox], same) {
			return false
		}
	}
	return true
}

// take keeps to the limits and enters the message in the ledger.
func (g *Graph) take(a GraphArrival) *graphError {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.At = g.o.Now()
	times := slices.DeleteFunc(g.taken[a.Mailbox], func(t time.Time) bool { return a.At.Sub(t) >= 24*time.Hour })
	g.taken[a.Mailbox] = times
	if g.o.PerDay > 0 && len(times) >= g.o.PerDay {
		return &graphError{403, "ErrorExceededMessageLimit", "Cannot send mail. Daily Message/Recipient limit exceeded., Cannot submit message.", ""}
	}
	if n := g.o.PerMinute; n > 0 && len(times) >= n && a.At.Sub(times[len(times)-n]) < time.Minute {
		wait := time.Minute - a.At.Sub(times[len(times)-n])
		return &graphError{429, "ApplicationThrottled", "Application is over its request limit.", fmt.Sprint(math.Ceil(wait.Seconds()))}
	}
	g.taken[a.Mailbox] = append(times, a.At)
	g.arrivals = append(g.arrivals, a)
	return nil
}
