package fakeprovider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

// drafter asks the fake as a client does.
type drafter struct {
	t *testing.T
	g *Graph
}

const drafts = "https://graph.example.com/v1.0/users/office@example.com/messages"

// ask makes a request and returns status, error code and body.
func (d drafter) ask(method, url, token, media, contentRange, body string) (status int, code string,
	said map[string]any) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", media)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if contentRange != "" {
		r.Header.Set("Content-Range", contentRange)
	}
	res, err := (&http.Client{Transport: testkit.Transport(d.g)}).Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	raw, _ := io.ReadAll(res.Body)
	_ = json.Unmarshal(raw, &said)
	if e, ok := said["error"].(map[string]any); ok {
		code, _ = e["code"].(string)
	}
	return res.StatusCode, code, said
}

func (d drafter) json(url, body string) (int, string, map[string]any) {
	d.t.Helper()
	return d.ask(http.MethodPost, url, "good", "application/json", "", body)
}

const someDraft = `{"subject":"s","body":{"contentType":"text","content":"hello"},
"from":{"emailAddress":{"address":"office@example.com"}},
"toRecipients":[{"emailAddress":{"name":"A","address":"A@example.org"}}],
"bccRecipients":[{"emailAddress":{"address":"b@example.org"}}]}`

func (d drafter) draft() (url string) {
	d.t.Helper()
	status, _, said := d.json(drafts, someDraft)
	id, _ := said["id"].(string)
	if status != 201 || id == "" {
		d.t.Fatalf("%d %v", status, said)
	}
	return drafts + "/" + id
}

func (d drafter) session(draft string, size int) (url string) {
	d.t.Helper()
	status, code, said := d.json(draft+"/attachments/createUploadSession",
		fmt.Sprintf(`{"AttachmentItem":{"attachmentType":"file","name":"big.pdf","size":%d}}`, size))
	if status != 201 {
		d.t.Fatalf("%d %s", status, code)
	}
	return said["uploadUrl"].(string)
}

// A draft is there until it is sent, its files are what was put into it, and what is sent is a message of its
// recipients.
func TestGraphSendsADraft(t *testing.T) {
	d := drafter{t, NewGraph(GraphOptions{})}
	at := d.draft()
	small, big := []byte("small"), bytes.Repeat([]byte("0123456789"), 300_000)
	file := `{"@odata.type":"#microsoft.graph.fileAttachment","name":"a.txt","contentType":"text/plain",` +
		`"contentBytes":"` + base64.StdEncoding.EncodeToString(small) + `"}`
	if status, code, _ := d.json(at+"/attachments", file); status != 201 {
		t.Fatal(status, code)
	}
	put := d.session(at, len(big))
	for from := 0; from < len(big); from += 1_000_000 {
		status, code, said := d.ask(http.MethodPut, put, "", "application/octet-stream",
			fmt.Sprintf("bytes %d-%d/%d", from, from+999_999, len(big)), string(big[from:from+1_000_000]))
		want := 200
		if from == 2_000_000 {
			want = 201
		}
		if status != want || want == 200 && fmt.Sprint(said["nextExpectedRanges"]) != fmt.Sprintf("[%d]",
			from+1_000_000) {
			t.Fatal(status, code, said)
		}
	}
	if n := len(d.g.Drafts()); n != 1 || len(d.g.Arrivals()) != 0 {
		t.Errorf("%d drafts before it is sent", n)
	}
	if status, code, _ := d.json(at+"/send", ""); status != 202 {
		t.Fatal(status, code)
	}
	if len(d.g.Drafts()) != 0 || len(d.g.Arrivals()) != 1 {
		t.Fatalf("%d drafts, %d arrivals", len(d.g.Drafts()), len(d.g.Arrivals()))
	}
	a := d.g.Arrivals()[0]
	if !slices.Equal(a.Recipients, []string{"a@example.org", "b@example.org"}) || len(a.Draft.Attachments) != 2 ||
		!bytes.Equal(a.Draft.Attachments[1].Content, big) || !a.Draft.Attachments[1].Uploaded {
		t.Errorf("%v, %d attachments", a.Recipients, len(a.Draft.Attachments))
	}
	if status, code, _ := d.json(at+"/send", ""); status != 404 || code != "ErrorItemNotFound" {
		t.Errorf("sent again: %d %s", status, code)
	}
}

func TestGraphRefusesDrafts(t *testing.T) {
	d := drafter{t, NewGraph(GraphOptions{
		SendAs: map[string][]string{}, MaxMessage: 5_000_000,
		Token: func(string, string) Access { return AccessGranted },
		ReadWrite: func(token, _ string) Access {
			return map[string]Access{"good": AccessGranted, "weak": AccessDenied}[token]
		},
	})}
	at := d.draft()
	put := d.session(at, 3_000_000)
	file := func(n int) string {
		return `{"@odata.type":"#microsoft.graph.fileAttachment","name":"a","contentBytes":"` +
			base64.StdEncoding.EncodeToString(make([]byte, n)) + `"}`
	}
	item := func(n int) string {
		return fmt.Sprintf(`{"AttachmentItem":{"attachmentType":"file","name":"a","size":%d}}`, n)
	}
	headers := func(names ...string) string {
		var all []string
		for _, n := range names {
			all = append(all, `{"name":"`+n+`","value":"v"}`)
		}
		return `{"body":{"contentType":"text"},"internetMessageHeaders":[` + strings.Join(all, ",") + `]}`
	}
	mill := strings.Repeat("x", 1_000_000)
	for name, c := range map[string]struct {
		method, url, token, media, contentRange, body string
		status                                        int
		code                                          string
	}{
		"token": {"POST", drafts, "old", "application/json", "", someDraft, 401,
			"InvalidAuthenticationToken"},
		"permission":    {"POST", drafts, "weak", "application/json", "", someDraft, 403, "ErrorAccessDenied"},
		"probe, denied": {"POST", drafts, "weak", "text/plain", "", "!!!!", 403, "ErrorAccessDenied"},
		"probe": {"POST", drafts, "good", "text/plain", "", "!!!!", 400,
			"ErrorMimeContentInvalidBase64String"},
		"unknown field": {"POST", drafts, "good", "application/json", "", `{"colour":"red"}`, 400, "RequestBodyRead"},
		"six headers": {"POST", drafts, "good", "application/json", "",
			headers("x-1", "x-2", "x-3", "x-4", "x-5", "x-6"), 400, "InvalidInternetMessageHeaderCollection"},
		"own header": {"POST", drafts, "good", "application/json", "", headers("List-Id"), 400,
			"InvalidInternetMessageHeader"},
		"4 MB": {"POST", drafts, "good", "application/json", "", `{"subject":"` + strings.Repeat(mill, 4) +
			`"}`, 413, "RequestEntityTooLarge"},
		"posted too big": {"POST", at + "/attachments", "good", "application/json", "", file(mostPosted + 1), 413,
			"RequestEntityTooLarge"},
		"no type": {"POST", at + "/attachments", "good", "application/json", "", `{"name":"a"}`, 400,
			"RequestBodyRead"},
		"not there": {"POST", drafts + "/x/attachments", "good", "application/json", "", file(1), 404,
			"ErrorItemNotFound"},
		"session small": {"POST", at + "/attachments/createUploadSession", "good", "application/json", "",
			item(leastSession - 1), 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"},
		"session large": {"POST", at + "/attachments/createUploadSession", "good", "application/json", "",
			item(mostSession + 1), 400, "ErrorAttachmentSizeLimitExceeded"},
		"message large": {"POST", at + "/attachments/createUploadSession", "good", "application/json", "",
			item(5_000_001), 400, "ErrorMessageSizeExceeded"},
		"put with token": {"PUT", put, "good", "application/octet-stream", "bytes 0-999999/3000000", mill, 401,
			"InvalidAudienceForResource"},
		"put elsewhere": {"PUT", put + "x", "", "application/octet-stream", "bytes 0-999999/3000000", mill, 401,
			"InvalidAuthenticationToken"},
		"put out of turn": {"PUT", put, "", "application/octet-stream", "bytes 1000000-1999999/3000000", mill, 416,
			"ErrorInvalidRange"},
		"put too much": {"PUT", put, "", "application/octet-stream", "bytes 0-4000000/4000001",
			strings.Repeat(mill, 4) + "x", 413, "RequestEntityTooLarge"},
		"put of another": {"PUT", put, "", "application/octet-stream", "bytes 0-999999/3000001", mill, 400,
			"ErrorInvalidArgument"},
		"put no range":  {"PUT", put, "", "application/octet-stream", "", mill, 400, "ErrorInvalidArgument"},
		"delete denied": {"DELETE", at, "weak", "", "", "", 403, "ErrorAccessDenied"},
		"path":          {"GET", at, "good", "", "", "", 404, "ResourceNotFound"},
	} {
		if status, code, _ := d.ask(c.method, c.url, c.token, c.media, c.contentRange, c.body); status != c.status ||
			code != c.code {
			t.Errorf("%s: %d %s", name, status, code)
		}
	}
	boss := strings.Replace(someDraft, "office@", "boss@", 1)
	_, _, said := d.json(drafts, boss)
	if status, code, _ := d.json(drafts+"/"+said["id"].(string)+"/send", ""); status != 403 ||
		code != "ErrorSendAsDenied" {
		t.Errorf("as another: %d %s", status, code)
	}
	_, _, said = d.json(drafts, `{"body":{"contentType":"text"}}`)
	if status, code, _ := d.json(drafts+"/"+said["id"].(string)+"/send", ""); status != 400 ||
		code != "ErrorInvalidRecipients" {
		t.Errorf("to nobody: %d %s", status, code)
	}
	if status, _, _ := d.ask(http.MethodDelete, at, "good", "", "", ""); status != 204 {
		t.Errorf("delete: %d", status)
	}
	if status, code, _ := d.ask(http.MethodGet, put, "", "", "", ""); status != 404 || code != "ErrorItemNotFound" {
		t.Errorf("the session of a draft that is gone: %d %s", status, code)
	}
	if n := len(d.g.Arrivals()); n != 0 {
		t.Errorf("%d arrivals", n)
	}
}

// A session tells how far it is, and ends.
func TestGraphSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := drafter{t, NewGraph(GraphOptions{SessionLife: time.Minute})}
		put := d.session(d.draft(), 3_000_000)
		d.g.Fail(GraphFault{Step: StepPut, Keep: 1234, Status: 503, Times: 1})
		if status, _, _ := d.ask(http.MethodPut, put, "", "application/octet-stream", "bytes 0-9999/3000000",
			strings.Repeat("x", 10_000)); status != 503 {
			t.Errorf("the fault shows as %d", status)
		}
		if status, _, said := d.ask(http.MethodGet, put, "", "", "", ""); status != 200 ||
			fmt.Sprint(said["nextExpectedRanges"]) != "[1234]" {
			t.Errorf("%d %v", status, said)
		}
		time.Sleep(time.Minute)
		if status, code, _ := d.ask(http.MethodGet, put, "", "", "", ""); status != 401 ||
			code != "InvalidAuthenticationToken" {
			t.Errorf("after its end: %d %s", status, code)
		}
	})
}

// Meet holds requests until as many are there, and gives up on clients that do not bring them.
func TestGraphMeets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n, met := range map[int]bool{3: true, 2: false} {
			g := NewGraph(GraphOptions{Meet: 3})
			begun := time.Now()
			done := make(chan int)
			for range n {
				go func() { done <- postMail(t, g, graphURL, "x", encoded(graphMail)).StatusCode }()
			}
			for range n {
				if status := <-done; status != 202 {
					t.Errorf("%d", status)
				}
			}
			if g.Met("office@example.com") != met || (time.Since(begun) == 0) != met ||
				g.MostAtOnce("office@example.com") != n {
				t.Errorf("%d came, met %v after %s", n, g.Met("office@example.com"), time.Since(begun))
			}
		}
	})
}
