package large

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	// smallFile: below, a file is one POST. Microsoft says 3 MB for both ways; 3 145 611 octets and 2 097 152 octets
	// were measured for the most of the one and the least of the other
	// (github.com/microsoftgraph/msgraph-sdk-java/pull/52).
	smallFile = 3_000_000
	// chunk is how much goes with one PUT. Graph takes less than 4 MB of an Outlook file, in order; multiples of 320
	// KiB are what its upload sessions ask for elsewhere.
	chunk = 10 * 320 << 10
	// maxResumes bounds how often one file is taken up again where it was cut.
	maxResumes = 5
	// maxRequest is the largest request, in octets.
	maxRequest = 4_000_000
)

// Client makes the requests of one attempt, as the mailbox that the message is sent from.
type Client interface {
	// Ask makes a request of Graph. It returns an error unless the answer's status is r.Want.
	Ask(ctx context.Context, r Request) error
	// Upload makes a request of the address of an upload session, without the access token.
	Upload(ctx context.Context, address string, r Request) (Answer, error)
}

// Answer is what an upload session said.
type Answer interface {
	Status() int
	Refused() error // classifies an answer that is no success
}

// Request is one of HTTP.
type Request struct {
	Method, Path string // Path is below the mailbox; Upload has an address instead
	Body         []byte
	Media        string // of the body; "": JSON
	ContentRange string
	Want         int                                      // the one status that is success
	Field        func(name string, value json.RawMessage) // is shown the fields of a 2xx answer
}

// upload fills one draft.
type upload struct {
	Client
	b  *Rebuilt
	id string // of the draft; "" before there is one
}

// Make makes the draft and fills it. path is that of the draft below the mailbox, "" where none was made; it is to be
// sent, or deleted if there is an error.
func (d *Draft) Make(ctx context.Context, c Client) (path string, err error) {
	u := &upload{Client: c, b: d.b}
	if err := u.create(ctx, d); err != nil {
		return "", err
	}
	return u.path(""), u.files(ctx)
}

// create makes the draft.
func (u *upload) create(ctx context.Context, d *Draft) error {
	body, err := marshal(d)
	if err != nil {
		return err
	}
	if len(body) > maxRequest {
		return refuse("5.3.4", "its text and its recipients make a request of %d octets, where %d are the most",
			len(body), maxRequest)
	}
	made := struct{ id string }{}
	f := u.Ask(ctx, Request{Method: http.MethodPost, Path: "/messages", Body: body, Want: http.StatusCreated,
		Field: func(name string, value json.RawMessage) {
			if strings.EqualFold(name, "id") {
				_ = json.Unmarshal(value, &made.id)
			}
		}})
	switch {
	case f != nil:
		return f
	case made.id == "" || len(made.id) > 1000:
		return Odd("a draft without id")
	}
	u.id = made.id
	return nil
}

// marshal leaves < and & as they are: escaped, HTML would be several times as long.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// files adds every file, in the order of the message.
func (u *upload) files(ctx context.Context) error {
	var failed error // outweighs that the rest of the message was not read
	err := u.b.m.walk(func(e *entity, decoded io.Reader) error {
		f := u.b.files[e.number]
		if f == nil {
			return nil
		}
		if f.size < smallFile {
			failed = u.attach(ctx, f, decoded)
		} else {
			failed = u.session(ctx, f, decoded)
		}
		return failed
	})
	if failed != nil {
		return failed
	}
	return err
}

// attach adds a small file with one request, whose body is built as it is decoded: the file is in memory once, in
// base64.
func (u *upload) attach(ctx context.Context, f *file, decoded io.Reader) error {
	head, err := marshal(struct {
		Type   string `json:"@odata.type"`
		Name   string `json:"name"`
		Media  string `json:"contentType"`
		Inline bool   `json:"isInline"`
		CID    string `json:"contentId,omitempty"`
	}{"#microsoft.graph.fileAttachment", f.name, f.media, f.inline, f.cid})
	if err != nil {
		return err
	}
	head = bytes.TrimRight(head, "}\n")
	b := bytes.NewBuffer(make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(int(f.size))+32))
	b.Write(head)
	b.WriteString(`,"contentBytes":"`)
	enc := base64.NewEncoder(base64.StdEncoding, b)
	n, err := io.Copy(enc, decoded)
	if err == nil {
		err = enc.Close()
	}
	if err == nil && n != f.size {
		err = errShort
	}
	if err != nil {
		return err
	}
	b.WriteString(`"}`)
	return u.Ask(ctx, Request{Method: http.MethodPost, Path: u.path("/attachments"), Body: b.Bytes(),
		Want: http.StatusCreated})
}

// path is that of something of the draft.
func (u *upload) path(rest string) string { return "/messages/" + url.PathEscape(u.id) + rest }

// session adds a large file by an upload session.
func (u *upload) session(ctx context.Context, f *file, decoded io.Reader) error {
	type item struct {
		Type   string `json:"attachmentType"`
		Name   string `json:"name"`
		Size   int64  `json:"size"`
		Media  string `json:"contentType"`
		Inline bool   `json:"isInline,omitempty"`
		CID    string `json:"contentId,omitempty"`
	}
	it := item{"file", f.name, f.size, f.media, f.inline, ""}
	if f.inline {
		it.CID = f.cid
	}
	body, err := marshal(map[string]item{"AttachmentItem": it})
	if err != nil {
		return err
	}
	var target string
	err = u.Ask(ctx, Request{Method: http.MethodPost, Path: u.path("/attachments/createUploadSession"), Body: body,
		Want: http.StatusCreated, Field: func(name string, value json.RawMessage) {
			if strings.EqualFold(name, "uploadUrl") {
				_ = json.Unmarshal(value, &target)
			}
		}})
	if err != nil {
		return err
	}
	at, err := url.Parse(target)
	if err != nil || at.Scheme != "https" || at.Host == "" {
		return Odd("an upload session without address")
	}
	s := &session{Client: u, address: target, size: f.size}
	return s.run(ctx, decoded)
}

// session is one file on its way. Its address is authorization enough: it must not get our token (learn.microsoft.com,
// outlook-large-attachments, step 2), and is not logged.
type session struct {
	Client
	address string
	size    int64
	resumes int
}

func (s *session) run(ctx context.Context, decoded io.Reader) error {
	for at := int64(0); at < s.size; {
		// a new one, since a transport may still read the last when its answer is there
		part := make([]byte, min(int64(chunk), s.size-at))
		if _, err := io.ReadFull(decoded, part); err != nil {
			return errShort
		}
		end := at + int64(len(part))
		for at < end {
			next, err := s.put(ctx, part[int64(len(part))-(end-at):], at)
			if err != nil {
				return err
			}
			if next < at || next > end {
				return Odd(fmt.Sprintf("octet %d as the next of a file, where %d was due", next, at))
			}
			at = next
		}
	}
	return nil
}

// put sends octets and returns which one is wanted next. A request without a good answer asks what has arrived.
func (s *session) put(ctx context.Context, part []byte, at int64) (next int64, err error) {
	end := at + int64(len(part))
	var got ranges
	ans, err := s.Upload(ctx, s.address, Request{
		Method: http.MethodPut, Body: part, Field: got.field, Media: "application/octet-stream",
		ContentRange: fmt.Sprintf("bytes %d-%d/%d", at, end-1, s.size),
	})
	switch {
	case err != nil:
	case ans.Status() == http.StatusCreated && end == s.size:
		return end, nil
	case ans.Status() == http.StatusOK && got.known && got.next < s.size:
		if got.next == at {
			s.resumes++
		}
		if s.resumes > maxResumes {
			return 0, Odd("no progress to an upload")
		}
		return got.next, nil
	default:
		if err = ans.Refused(); ans.Status() < 500 {
			return 0, err
		}
	}
	if s.resumes++; s.resumes > maxResumes || ctx.Err() != nil {
		return 0, err
	}
	return s.resume(ctx, err)
}

// resume asks how much of the file has arrived. why is returned where that is not to be learnt; a file that is complete
// has no session any more, so the attempt begins anew then.
func (s *session) resume(ctx context.Context, why error) (next int64, err error) {
	var got ranges
	ans, err := s.Upload(ctx, s.address, Request{Method: http.MethodGet, Field: got.field})
	if err != nil || ans.Status() != http.StatusOK || !got.known {
		return 0, why
	}
	return got.next, nil
}

// ranges is what a session wants next.
type ranges struct {
	next  int64
	known bool
}

// field reads nextExpectedRanges, whose spelling differs between clouds (msgraph-sdk-dotnet #2092): ["2097152"], or
// ["2097152-"].
func (r *ranges) field(name string, value json.RawMessage) {
	var list []string
	if !strings.EqualFold(name, "nextExpectedRanges") || json.Unmarshal(value, &list) != nil || len(list) == 0 {
		return
	}
	first, _, _ := strings.Cut(list[0], "-")
	if n, err := strconv.ParseInt(first, 10, 64); err == nil && n >= 0 {
		r.next, r.known = n, true
	}
}
