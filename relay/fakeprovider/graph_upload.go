package fakeprovider

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

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
