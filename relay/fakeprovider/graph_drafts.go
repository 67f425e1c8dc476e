package fakeprovider

import (
	"bytes"
	"encoding/base64"
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
		c.step, c.run = StepSend, g.sendDraft
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

func (g *Graph) mayWrite(r *http.Request, mailbox string) *graphError {
	judge := g.o.ReadWrite
	if judge == nil {
		judge = g.o.Token
	}
	return g.authorize(r, mailbox, judge)
}

// json reads a request and takes no field that Graph does not know.
func (g *Graph) json(r *http.Request, into any) *graphError {
	raw, failed := g.body(r)
	if failed != nil {
		return failed
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return &graphError{400, "RequestBodyRead", "Unable to read JSON request payload: " + err.Error(), ""}
	}
	return nil
}

func (g *Graph) makeDraft(r *http.Request, c call) (graphReply, *graphError) {
	if err := g.mayWrite(r, c.mailbox); err != nil {
		return graphReply{}, err
	}
	if contentType(r) == "text/plain" {
		if _, err := g.mimeOf(r); err != nil {
			return graphReply{}, err
		}
		return graphReply{}, &graphError{415, "RequestBodyRead", "The fake makes drafts of JSON only.", ""}
	}
	d := &GraphDraft{Mailbox: c.mailbox}
	if err := g.json(r, d); err != nil {
		return graphReply{}, err
	}
	if err := d.check(); err != nil {
		return graphReply{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serial++
	d.ID = fmt.Sprintf("AAMkAG%06d=", g.serial)
	g.drafts[d.ID] = d
	return graphReply{http.StatusCreated, map[string]any{"@odata.etag": `W/"CQ"`, "id": d.ID, "isDraft": true, "subject": d.Subject, "body": d.Body}}, nil
}

func (d *GraphDraft) check() *graphError {
	if k := strings.ToLower(d.Body.ContentType); k != "text" && k != "html" {
		return &graphError{400, "ErrorInvalidArgument", "The body has no contentType.", ""}
	}
	if i := strings.ToLower(d.Importance); !slices.Contains([]string{"", "low", "normal", "high"}, i) {
		return &graphError{400, "RequestBodyRead", "Cannot convert the value to type importance.", ""}
	}
	if len(d.Headers) > 5 {
		return &graphError{400, "InvalidInternetMessageHeaderCollection", "Maximum number of headers in one message should be less than or equal to 5.", ""}
	}
	for _, h := range d.Headers {
		if !strings.HasPrefix(strings.ToLower(h.Name), "x-") {
			return &graphError{400, "InvalidInternetMessageHeader", "The internet message header name '" + h.Name + "' should start with 'x-' or 'X-'.", ""}
		}
	}
	for _, list := range [][]GraphPerson{d.ToRecipients, d.CcRecipients, d.BccRecipients, d.ReplyTo} {
		for _, p := range list {
			if _, err := netmail.ParseAddress("<" + p.EmailAddress.Address + ">"); err != nil {
				return &graphError{400, "ErrorInvalidRecipients", "At least one recipient is not valid.", ""}
			}
		}
	}
	return nil
}

// findLocked is a draft of the mailbox, under the lock.
func (g *Graph) findLocked(c call) (*GraphDraft, *graphError) {
	d := g.drafts[c.item]
	if d == nil || d.Mailbox != c.mailbox {
		return nil, &graphError{404, "ErrorItemNotFound", "The specified object was not found in the store.", ""}
	}
	return d, nil
}

func (g *Graph) deleteDraft(r *http.Request, c call) (graphReply, *graphError) {
	if err := g.mayWrite(r, c.mailbox); err != nil {
		return graphReply{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.findLocked(c); err != nil {
		return graphReply{}, err
	}
	delete(g.drafts, c.item)
	return graphReply{status: http.StatusNoContent}, nil
}

func (g *Graph) attach(r *http.Request, c call) (graphReply, *graphError) {
	if err := g.mayWrite(r, c.mailbox); err != nil {
		return graphReply{}, err
	}
	var in struct {
		Type                                       string `json:"@odata.type"`
		Name, ContentType, ContentID, ContentBytes string
		IsInline                                   bool
	}
	// A file of 3 MB is more than 4 MB in base64, and is taken.
	raw, err := io.ReadAll(io.LimitReader(r.Body, 2*g.o.MaxRequest))
	if err != nil {
		return graphReply{}, &graphError{400, "BadRequest", "The request was cut.", ""}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil || in.Type != "#microsoft.graph.fileAttachment" || in.Name == "" {
		return graphReply{}, &graphError{400, "RequestBodyRead", "Unable to read JSON request payload.", ""}
	}
	content, err := base64.StdEncoding.DecodeString(in.ContentBytes)
	if err != nil {
		return graphReply{}, &graphError{400, "RequestBodyRead", "Cannot convert the literal to the expected type 'Edm.Binary'.", ""}
	}
	if len(content) > mostPosted {
		return graphReply{}, &graphError{413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.", ""}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	d, failed := g.findLocked(c)
	if failed == nil {
		failed = g.addLocked(d, GraphAttachment{in.Name, in.ContentType, in.ContentID, in.IsInline, content, false})
	}
	return graphReply{http.StatusCreated, map[string]any{"id": "AAMkAt=", "contentBytes": in.ContentBytes}}, failed
}

func (g *Graph) addLocked(d *GraphDraft, a GraphAttachment) *graphError {
	if g.roomLocked(d) < int64(len(a.Content)) {
		return &graphError{400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.", ""}
	}
	d.Attachments = append(d.Attachments, a)
	return nil
}

func (g *Graph) roomLocked(d *GraphDraft) int64 {
	left := g.o.MaxMessage
	for _, a := range d.Attachments {
		left -= int64(len(a.Content))
	}
	return left
}

func (g *Graph) makeSession(r *http.Request, c call) (graphReply, *graphError) {
	if err := g.mayWrite(r, c.mailbox); err != nil {
		return graphReply{}, err
	}
	var in struct {
		AttachmentItem struct {
			AttachmentType, Name, ContentType, ContentID string
			Size                                         int64
			IsInline                                     bool
		}
	}
	if err := g.json(r, &in); err != nil {
		return graphReply{}, err
	}
	it := in.AttachmentItem
	g.mu.Lock()
	defer g.mu.Unlock()
	d, err := g.findLocked(c)
	switch {
	case err != nil:
		return graphReply{}, err
	case !strings.EqualFold(it.AttachmentType, "file") || it.Name == "":
		return graphReply{}, &graphError{400, "ErrorInvalidArgument", "AttachmentItem is not complete.", ""}
	case it.Size < leastSession:
		return graphReply{}, &graphError{400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "Attachment size should not be less than the minimum size.", ""}
	case it.Size > mostSession:
		return graphReply{}, &graphError{400, "ErrorAttachmentSizeLimitExceeded", "The attachment exceeds the maximum size.", ""}
	case it.Size > g.roomLocked(d):
		return graphReply{}, &graphError{400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.", ""}
	}
	g.serial++
	name := fmt.Sprintf("s%06d", g.serial)
	s := &uploadSession{draft: d.ID, size: it.Size, expires: g.o.Now().Add(g.o.SessionLife),
		file: GraphAttachment{Name: it.Name, ContentType: it.ContentType, ContentID: it.ContentID, IsInline: it.IsInline, Uploaded: true}}
	g.sessions[name] = s
	host := g.o.UploadHost
	if host == "" {
		host = r.Host
	}
	said := s.said()
	said["uploadUrl"] = "https://" + host + sessionPath + name + "?authtoken=eyJ"
	said["nextExpectedRanges"] = []string{"0-"}
	return graphReply{http.StatusCreated, said}, nil
}

func (s *uploadSession) said() map[string]any {
	return map[string]any{"expirationDateTime": s.expires.UTC().Format(time.RFC3339), "nextExpectedRanges": []string{fmt.Sprint(len(s.file.Content))}}
}

// openLocked is a session that is still good. One has no use for a token: its address has one, for another audience.
func (g *Graph) openLocked(r *http.Request, c call) (*uploadSession, *GraphDraft, *graphError) {
	s := g.sessions[c.item]
	switch {
	case r.Header.Get("Authorization") != "":
		return nil, nil, &graphError{401, "InvalidAudienceForResource", "The audience claim value is invalid for current resource.", ""}
	case r.URL.RawQuery != "authtoken=eyJ":
		return nil, nil, &graphError{401, "InvalidAuthenticationToken", "The upload URL was changed.", ""}
	case s == nil || g.drafts[s.draft] == nil:
		return nil, nil, &graphError{404, "ErrorItemNotFound", "The specified object was not found in the store.", ""}
	case !g.o.Now().Before(s.expires):
		return nil, nil, &graphError{401, "InvalidAuthenticationToken", "The upload session has expired.", ""}
	}
	return s, g.drafts[s.draft], nil
}

func (g *Graph) status(r *http.Request, c call) (graphReply, *graphError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, _, err := g.openLocked(r, c)
	if err != nil {
		return graphReply{}, err
	}
	return graphReply{http.StatusOK, s.said()}, nil
}

// put takes octets in order, up to 4 MB at a time.
func (g *Graph) put(r *http.Request, c call) (graphReply, *graphError) {
	var from, to, size int64
	if n, _ := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); n != 3 || contentType(r) != "application/octet-stream" {
		return graphReply{}, &graphError{400, "ErrorInvalidArgument", "Content-Range or Content-Type is missing.", ""}
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, mostPut+1))
	g.mu.Lock()
	defer g.mu.Unlock()
	s, d, failed := g.openLocked(r, c)
	switch {
	case failed != nil:
		return graphReply{}, failed
	case err != nil:
		return graphReply{}, &graphError{400, "BadRequest", "The request was cut.", ""}
	case len(raw) > mostPut:
		return graphReply{}, &graphError{413, "RequestEntityTooLarge", "The range is larger than 4 MB.", ""}
	case r.ContentLength != to-from+1 || int64(len(raw)) != to-from+1 || size != s.size || to >= size:
		return graphReply{}, &graphError{400, "ErrorInvalidArgument", "Content-Range does not fit.", ""}
	case from != int64(len(s.file.Content)):
		return graphReply{}, &graphError{416, "ErrorInvalidRange", "Upload bytes in order.", ""}
	}
	s.file.Content = append(s.file.Content, raw...)
	if to+1 < size {
		return graphReply{http.StatusOK, s.said()}, nil
	}
	delete(g.sessions, c.item)
	return graphReply{status: http.StatusCreated}, g.addLocked(d, s.file)
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

// sendDraft makes an arrival of a draft. It wants the right to send, as sendMail does.
func (g *Graph) sendDraft(r *http.Request, c call) (graphReply, *graphError) {
	if err := g.authorize(r, c.mailbox, g.o.Token); err != nil {
		return graphReply{}, err
	}
	g.mu.Lock()
	d, err := g.findLocked(c)
	g.mu.Unlock()
	if err != nil {
		return graphReply{}, err
	}
	if err := g.mayBeSent(d); err != nil {
		return graphReply{}, err
	}
	a := GraphArrival{Mailbox: c.mailbox, Draft: d, RequestID: c.id}
	for _, list := range [][]GraphPerson{d.ToRecipients, d.CcRecipients, d.BccRecipients} {
		for _, p := range list {
			if to := strings.ToLower(p.EmailAddress.Address); !slices.Contains(a.Recipients, to) {
				a.Recipients = append(a.Recipients, to)
			}
		}
	}
	if len(a.Recipients) == 0 {
		return graphReply{}, &graphError{400, "ErrorInvalidRecipients", "At least one recipient is not valid., A message can't be sent because it contains no recipients.", ""}
	}
	if err := g.take(a); err != nil {
		return graphReply{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.drafts, c.item)
	return graphReply{status: http.StatusAccepted}, nil
}

func (g *Graph) mayBeSent(d *GraphDraft) *graphError {
	var from []*netmail.Address
	for _, p := range []*GraphPerson{d.From, d.Sender} {
		if p != nil {
			from = append(from, &netmail.Address{Address: p.EmailAddress.Address})
		}
	}
	if g.o.SendAs != nil && !g.maySend(d.Mailbox, from) {
		return &graphError{403, "ErrorSendAsDenied", "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message.", ""}
	}
	return nil
}
