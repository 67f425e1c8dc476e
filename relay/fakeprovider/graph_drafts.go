package fakeprovider

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	netmail "net/mail"
	"slices"
	"strings"
	"time"
)

// Limits of attachments, in octets: what Microsoft says is 3 MB for both, what was measured (msgraph-sdk-java #52).
const (
	mostPosted   = 3_145_611
	leastSession = 2_097_152
	mostSession  = 150_000_000
	mostPut      = 4_000_000
)

// GraphDraft is a draft of a mailbox, or the message that was one.
type GraphDraft struct {
	Mailbox string `json:"-"`
	ID      string `json:"-"`

	Subject           string
	Body              struct{ ContentType, Content string }
	From, Sender      *GraphPerson
	ToRecipients      []GraphPerson
	CcRecipients      []GraphPerson
	BccRecipients     []GraphPerson
	ReplyTo           []GraphPerson
	Importance        string
	InternetMessageID string                         `json:"internetMessageId"`
	IsReadReceipt     bool                           `json:"isReadReceiptRequested"`
	Headers           []struct{ Name, Value string } `json:"internetMessageHeaders"`

	Attachments []GraphAttachment `json:"-"`
}

// GraphPerson is a recipient or an author.
type GraphPerson struct {
	EmailAddress struct{ Name, Address string }
}

// GraphAttachment is a file of a draft.
type GraphAttachment struct {
	Name, ContentType, ContentID string
	IsInline                     bool
	Content                      []byte
	Uploaded                     bool // by an upload session
}

// uploadSession is one file that is on its way.
type uploadSession struct {
	draft   string
	file    GraphAttachment
	size    int64
	expires time.Time
}

// Drafts are those that were neither sent nor deleted.
func (g *Graph) Drafts() []GraphDraft {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []GraphDraft
	for _, d := range g.drafts {
		all = append(all, *d)
	}
	return all
}

// table is where the first requests of a mailbox meet.
type table struct {
	here int
	full chan struct{}
}

// Met reports whether Meet requests of a mailbox came together.
func (g *Graph) Met(mailbox string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tables[strings.ToLower(mailbox)]
	return t != nil && t.here >= g.o.Meet
}

// gather holds a request until as many as Meet are there, at most until its client has enough or half a minute is over.
func (g *Graph) gather(r *http.Request, mailbox string) bool {
	if g.o.Meet == 0 {
		return true
	}
	g.mu.Lock()
	t := g.tables[mailbox]
	if t == nil {
		t = &table{full: make(chan struct{})}
		g.tables[mailbox] = t
	}
	if t.here++; t.here == g.o.Meet {
		close(t.full)
	}
	g.mu.Unlock()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	select {
	case <-t.full:
	case <-patience.C:
	case <-r.Context().Done():
		return false
	}
	return true
}

// routeDraft finds what is asked of a mailbox's drafts.
func (g *Graph) routeDraft(r *http.Request, c call, path string) (call, bool) {
	rest, ok := strings.CutPrefix(path, "messages")
	if !ok {
		return c, false
	}
	c.judge = g.o.ReadWrite
	var below string
	c.item, below, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	switch r.Method + " " + below {
	case "POST ":
		c.step, c.run = StepDraft, g.makeDraft
		return c, c.item == ""
	case "DELETE ":
		c.step, c.run = StepDelete, g.deleteDraft
	case "POST attachments":
		c.step, c.run = StepAttach, g.attach
	case "POST attachments/createUploadSession":
		c.step, c.run = StepSession, g.makeSession
	case "POST send":
		c.step, c.judge, c.run = StepSend, g.o.Token, g.sendDraft // as sendMail does
	}
	return c, c.run != nil && c.item != ""
}

// sessionPath is where upload sessions are, on another host than Graph in the real service.
const sessionPath = "/attachment-sessions/"

func (g *Graph) routeSession(r *http.Request) (call, bool) {
	item, ok := strings.CutPrefix(r.URL.Path, sessionPath)
	if !ok {
		return call{}, false
	}
	c := call{item: item, step: StepPut, run: g.put}
	if r.Method == http.MethodGet {
		c.step, c.run = StepStatus, g.status
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[item]; s != nil {
		if d := g.drafts[s.draft]; d != nil {
			c.mailbox = d.Mailbox
		}
	}
	return c, r.Method == http.MethodGet || r.Method == http.MethodPut
}

// json reads a request of at most so many octets and takes no field that Graph does not know.
func (g *Graph) json(r *http.Request, most int64, into any) *graphReply {
	raw, failed := g.body(r, most)
	if failed != nil {
		return failed
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refuse(400, "RequestBodyRead", "Unable to read JSON request payload: "+err.Error())
	}
	return nil
}

func (g *Graph) makeDraft(r *http.Request, c call) *graphReply {
	if contentType(r) == "text/plain" {
		if _, err := g.mimeOf(r); err != nil {
			return err
		}
		return refuse(415, "RequestBodyRead", "The fake makes drafts of JSON only.")
	}
	d := &GraphDraft{Mailbox: c.mailbox}
	if err := g.json(r, g.o.MaxRequest, d); err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serial++
	d.ID = fmt.Sprintf("AAMkAG%06d=", g.serial)
	g.drafts[d.ID] = d
	return &graphReply{status: http.StatusCreated, body: map[string]any{
		"@odata.etag": `W/"CQ"`, "id": d.ID, "isDraft": true, "subject": d.Subject, "body": d.Body,
	}}
}

func (d *GraphDraft) check() *graphReply {
	if k := strings.ToLower(d.Body.ContentType); k != "text" && k != "html" {
		return refuse(400, "ErrorInvalidArgument", "The body has no contentType.")
	}
	if i := strings.ToLower(d.Importance); !slices.Contains([]string{"", "low", "normal", "high"}, i) {
		return refuse(400, "RequestBodyRead", "Cannot convert the value to type importance.")
	}
	if len(d.Headers) > 5 {
		return refuse(400, "InvalidInternetMessageHeaderCollection",
			"Maximum number of headers in one message should be less than or equal to 5.")
	}
	for _, h := range d.Headers {
		if !strings.HasPrefix(strings.ToLower(h.Name), "x-") {
			return refuse(400, "InvalidInternetMessageHeader", "The internet message header name '"+h.Name+
				"' should start with 'x-' or 'X-'.")
		}
	}
	for _, p := range slices.Concat(d.ToRecipients, d.CcRecipients, d.BccRecipients, d.ReplyTo) {
		if _, err := netmail.ParseAddress("<" + p.EmailAddress.Address + ">"); err != nil {
			return refuse(400, "ErrorInvalidRecipients", "At least one recipient is not valid.")
		}
	}
	return nil
}

// findLocked is a draft of the mailbox, under the lock.
func (g *Graph) findLocked(c call) (*GraphDraft, *graphReply) {
	d := g.drafts[c.item]
	if d == nil || d.Mailbox != c.mailbox {
		return nil, refuse(404, "ErrorItemNotFound", "The specified object was not found in the store.")
	}
	return d, nil
}

func (g *Graph) deleteDraft(r *http.Request, c call) *graphReply {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.findLocked(c); err != nil {
		return err
	}
	delete(g.drafts, c.item)
	return &graphReply{status: http.StatusNoContent}
}

func (g *Graph) attach(r *http.Request, c call) *graphReply {
	var in struct {
		Type                         string `json:"@odata.type"`
		Name, ContentType, ContentID string
		ContentBytes                 []byte // in base64
		IsInline                     bool
	}
	// A file of 3 MB is more than 4 MB in base64, and is taken.
	if failed := g.json(r, 2*g.o.MaxRequest, &in); failed != nil {
		return failed
	}
	if in.Type != "#microsoft.graph.fileAttachment" || in.Name == "" {
		return refuse(400, "RequestBodyRead", "Unable to read JSON request payload.")
	}
	if len(in.ContentBytes) > mostPosted {
		return refuse(413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	d, failed := g.findLocked(c)
	if failed != nil {
		return failed
	}
	said := g.addLocked(d, GraphAttachment{in.Name, in.ContentType, in.ContentID, in.IsInline, in.ContentBytes, false})
	if said.code == "" {
		said.body = map[string]any{"id": "AAMkAt=", "contentBytes": in.ContentBytes}
	}
	return said
}

func tooLarge() *graphReply {
	return refuse(400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
}

func (g *Graph) addLocked(d *GraphDraft, a GraphAttachment) *graphReply {
	if g.roomLocked(d) < int64(len(a.Content)) {
		return tooLarge()
	}
	d.Attachments = append(d.Attachments, a)
	return &graphReply{status: http.StatusCreated}
}

func (g *Graph) roomLocked(d *GraphDraft) int64 {
	left := g.o.MaxMessage
	for _, a := range d.Attachments {
		left -= int64(len(a.Content))
	}
	return left
}

func (g *Graph) makeSession(r *http.Request, c call) *graphReply {
	var in struct {
		AttachmentItem struct {
			AttachmentType, Name, ContentType, ContentID string
			Size                                         int64
			IsInline                                     bool
		}
	}
	if err := g.json(r, g.o.MaxRequest, &in); err != nil {
		return err
	}
	it := in.AttachmentItem
	g.mu.Lock()
	defer g.mu.Unlock()
	d, err := g.findLocked(c)
	switch {
	case err != nil:
		return err
	case !strings.EqualFold(it.AttachmentType, "file") || it.Name == "":
		return refuse(400, "ErrorInvalidArgument", "AttachmentItem is not complete.")
	case it.Size < leastSession:
		return refuse(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize",
			"Attachment size should not be less than the minimum size.")
	case it.Size > mostSession:
		return refuse(400, "ErrorAttachmentSizeLimitExceeded",
			"The attachment exceeds the maximum size.")
	case it.Size > g.roomLocked(d):
		return tooLarge()
	}
	g.serial++
	name := fmt.Sprintf("s%06d", g.serial)
	s := &uploadSession{draft: d.ID, size: it.Size, expires: g.o.Now().Add(g.o.SessionLife),
		file: GraphAttachment{Name: it.Name, ContentType: it.ContentType, ContentID: it.ContentID,
			IsInline: it.IsInline, Uploaded: true}}
	g.sessions[name] = s
	said := s.said()
	said["uploadUrl"] = "https://" + cmp.Or(g.o.UploadHost, r.Host) + sessionPath + name + "?authtoken=eyJ"
	said["nextExpectedRanges"] = []string{"0-"}
	return &graphReply{status: http.StatusCreated, body: said}
}

func (s *uploadSession) said() map[string]any {
	return map[string]any{"expirationDateTime": s.expires.UTC().Format(time.RFC3339),
		"nextExpectedRanges": []string{fmt.Sprint(len(s.file.Content))}}
}

// openLocked is a session that is still good. One has no use for a token: its address has one, for another audience.
func (g *Graph) openLocked(r *http.Request, c call) (*uploadSession, *GraphDraft, *graphReply) {
	s := g.sessions[c.item]
	switch {
	case r.Header.Get("Authorization") != "":
		return nil, nil, refuse(401, "InvalidAudienceForResource",
			"The audience claim value is invalid for current resource.")
	case r.URL.RawQuery != "authtoken=eyJ":
		return nil, nil, refuse(401, "InvalidAuthenticationToken", "The upload URL was changed.")
	case s == nil || g.drafts[s.draft] == nil:
		return nil, nil, refuse(404, "ErrorItemNotFound", "The specified object was not found in the store.")
	case !g.o.Now().Before(s.expires):
		return nil, nil, refuse(401, "InvalidAuthenticationToken", "The upload session has expired.")
	}
	return s, g.drafts[s.draft], nil
}

func (g *Graph) status(r *http.Request, c call) *graphReply {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, _, err := g.openLocked(r, c)
	if err != nil {
		return err
	}
	return &graphReply{status: http.StatusOK, body: s.said()}
}

// put takes octets in order, up to 4 MB at a time.
func (g *Graph) put(r *http.Request, c call) *graphReply {
	var from, to, size int64
	if n, _ := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); n != 3 ||
		contentType(r) != "application/octet-stream" {
		return refuse(400, "ErrorInvalidArgument", "Content-Range or Content-Type is missing.")
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, mostPut+1))
	g.mu.Lock()
	defer g.mu.Unlock()
	s, d, failed := g.openLocked(r, c)
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return refuse(400, "BadRequest", "The request was cut.")
	case len(raw) > mostPut:
		return refuse(413, "RequestEntityTooLarge", "The range is larger than 4 MB.")
	case r.ContentLength != to-from+1 || int64(len(raw)) != to-from+1 || size != s.size || to >= size:
		return refuse(400, "ErrorInvalidArgument", "Content-Range does not fit.")
	case from != int64(len(s.file.Content)):
		return refuse(416, "ErrorInvalidRange", "Upload bytes in order.")
	}
	s.file.Content = append(s.file.Content, raw...)
	if to+1 < size {
		return &graphReply{status: http.StatusOK, body: s.said()}
	}
	delete(g.sessions, c.item)
	return g.addLocked(d, s.file)
}

// keep takes the first octets of a PUT that is about to fail.
func (g *Graph) keep(r *http.Request, c call, n int) {
	raw, _ := io.ReadAll(io.LimitReader(r.Body, int64(n)))
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, _, err := g.openLocked(r, c); err == nil && c.step == StepPut {
		s.file.Content = append(s.file.Content, raw...)
	}
}

// sendDraft makes an arrival of a draft.
func (g *Graph) sendDraft(_ *http.Request, c call) *graphReply {
	g.mu.Lock()
	d, failed := g.findLocked(c)
	g.mu.Unlock()
	if failed != nil {
		return failed
	}
	for _, p := range []*GraphPerson{d.From, d.Sender} {
		if p != nil && !g.maySend(d.Mailbox, []*netmail.Address{{Address: p.EmailAddress.Address}}) {
			return sendAsDenied()
		}
	}
	a := GraphArrival{Mailbox: c.mailbox, Draft: d, RequestID: c.id}
	for _, p := range slices.Concat(d.ToRecipients, d.CcRecipients, d.BccRecipients) {
		if to := strings.ToLower(p.EmailAddress.Address); !slices.Contains(a.Recipients, to) {
			a.Recipients = append(a.Recipients, to)
		}
	}
	said := g.take(a)
	if said.code == "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.drafts, c.item)
	}
	return said
}
