package fakeprovider

import (
	"bytes"
	"encoding/json"
	"fmt"
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
	c.access = g.o.ReadWrite
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
		c.step, c.access, c.run = StepSend, g.o.Token, g.sendDraft // as sendMail does
	}
	return c, c.run != nil && c.item != ""
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
