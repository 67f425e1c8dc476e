package api

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
	"postern/relay/trace"
)

func TestBodies(t *testing.T) {
	r := newRig(t)
	r.account("carl", false)
	deep := strings.Repeat(`{"senders":`, 20) + "1" + strings.Repeat("}", 20)
	for name, c := range map[string]struct{ body, want string }{
		"nothing":           {"", "malformed"},
		"no object":         {`["note"]`, "malformed"},
		"no JSON":           {`{"note":}`, "malformed"},
		"cut":               {`{"note":"x"`, "malformed"},
		"two values":        {`{"note":"x"}{}`, "malformed"},
		"two names":         {`{"note":"x","note":"y"}`, "malformed"},
		"two names inside":  {`{"senders":{"add":[],"add":["a@b.example"]}}`, "malformed"},
		"other case":        {`{"Note":"x"}`, "malformed"},
		"looks like ours":   {`{"ſenders":{}}`, "malformed"},
		"deep":              {deep, "malformed"},
		"deep lists":        {`{"note":` + strings.Repeat("[", 100000), "malformed"},
		"no UTF-8":          {"{\"note\":\"\xff\"}", "malformed"},
		"a number too many": {`{"note":1}`, "invalid"},
		"unknown name":      {`{"colour":"red"}`, "invalid"},
		"unknown inside":    {`{"senders":{"replace":["a@b.example"]}}`, "invalid"},
		"nothing to change": {`{}`, "invalid"},
		"null":              {`{"senders":null,"note":"x"}`, ""},
		"too large":         {`{"note":"` + strings.Repeat("x", maxBody) + `"}`, "too-large"},
		"good":              {`{"note":"x"}`, ""},
	} {
		got := r.do(admin, request(http.MethodPatch, "/logins/carl", c.body))
		if got.problem() != c.want || (c.want == "") != (got.StatusCode == http.StatusOK) {
			t.Errorf("%s: %d %.500s", name, got.StatusCode, got.body)
		}
	}
}

// Only a type that a page of another site cannot send is taken.
func TestContentTypes(t *testing.T) {
	r := newRig(t)
	r.account("carl", false)
	for kind, fine := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true, "": false,
		"text/plain": false, "application/x-www-form-urlencoded": false, "multipart/form-data; boundary=x": false,
		"application/json; charset=utf-16": false, "application/json, text/plain": false, "text/csv": false, ";": false,
		"application/problem+json": false, "application/cbor": false,
	} {
		for _, method := range []string{http.MethodPost, http.MethodPatch} {
			path, body := "/logins/carl/lock", `{"reason":"x"}`
			if method == http.MethodPatch {
				path, body = "/logins/carl", `{"note":"x"}`
			}
			req := request(method, path, body)
			req.Header.Set("Content-Type", kind)
			if got := r.do(admin, req); fine != (got.StatusCode == http.StatusOK) ||
				!fine && got.problem() != "wrong-content-type" {
				t.Errorf("%s with %q: %d %s", method, kind, got.StatusCode, got.body)
			}
		}
	}
	packed := request(http.MethodPost, "/logins/carl/lock", `{}`)
	packed.Header.Set("Content-Encoding", "gzip")
	if got := r.do(admin, packed); got.problem() != "wrong-content-type" {
		t.Errorf("packed: %d", got.StatusCode)
	}
	if got := r.do(admin, request(http.MethodDelete, "/logins/carl", "{}")); got.problem() != "malformed" {
		t.Errorf("DELETE with a body: %d", got.StatusCode)
	}
	table := request(http.MethodPost, "/logins/import", "login\nnew\n")
	if got := r.do(admin, table); got.problem() != "wrong-content-type" {
		t.Errorf("a table as JSON: %d %s", got.StatusCode, got.body)
	}
}

// endless is a body without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

// broken is a body that ends with an error.
type broken struct{ error }

func (b broken) Read([]byte) (int, error) { return 0, b.error }

// What has no announced length is read to the bound and no further, and nothing at all for whom may not.
func TestBodiesAreBounded(t *testing.T) {
	r := newRig(t)
	for path, most := range map[string]int{"/logins": maxBody, "/logins/import": maxTable} {
		body := &endless{}
		req := request(http.MethodPost, path, "")
		req.Body, req.ContentLength = io.NopCloser(body), -1
		if path == "/logins/import" {
			req.Header.Set("Content-Type", "text/csv")
		}
		if got := r.do(admin, req); got.problem() != "too-large" || body.read > 2*most+1<<20 {
			t.Errorf("%s: %d after %d octets", path, got.StatusCode, body.read)
		}
		body = &endless{}
		req.Body = io.NopCloser(body)
		if got := r.do(scopes(operate.ScopeRead), req); got.problem() != "forbidden" || body.read > 0 {
			t.Errorf("%s: %d after %d octets", path, got.StatusCode, body.read)
		}
	}
	for want, err := range map[string]error{"malformed": io.ErrUnexpectedEOF, "slow-body": os.ErrDeadlineExceeded} {
		req := request(http.MethodPost, "/logins", "")
		req.Body, req.ContentLength = io.NopCloser(broken{err}), 100
		if got := r.do(admin, req); got.problem() != want {
			t.Errorf("%v: %d %s", err, got.StatusCode, got.body)
		}
	}
}

// Whatever a provider, a client or a caller wrote comes back as text in JSON, harmless in HTML too.
func TestHostileText(t *testing.T) {
	const hostile = "</script><script>alert(1)</script>\"'&\u2028\x00\x1b[31m\u202e\xff"
	r := newRig(t)
	r.happened(trace.Event{Kind: trace.Deferred, ID: "m1", Login: "anna", From: hostile, To: hostile, Client: hostile,
		Upstream: "m365", Reply: mail.Reply{Code: 451, Enhanced: "4.7.0", Text: hostile}, Detail: hostile,
		Session:   hostile,
		MessageID: hostile})
	r.queued("m1", func(m *queue.Message) {
		m.MessageID, m.HoldReason, m.Held, m.LastReply = hostile, hostile, true, mail.Reply{Code: 550, Text: hostile}
	})
	r.account("carl", false)
	r.send(http.MethodPatch, "/logins/carl", `{"note":"<script>\u0000\u202e"}`, http.StatusOK, nil)
	var bodies []answer
	for _, path := range []string{"/messages", "/messages/m1", "/queue", "/queue/m1", "/logins",
		"/messages/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/logins/%3Cscript%3E", "/queue?cursor=%3Cscript%3E",
		"/queue?%3Cscript%3E=1", "/%3Cscript%3E"} {
		bodies = append(bodies, r.do(admin, request(http.MethodGet, path, "")))
	}
	for _, body := range []string{`{"login":"<script>"}`, `{"login":"x","senders":["<script>"]}`, `{"<script>":1}`,
		`{"login":"x","password":"<script>hunter2"}`} {
		bodies = append(bodies, r.do(admin, request(http.MethodPost, "/devices", body)))
	}
	for i, a := range bodies {
		if bytes.ContainsAny(a.body, "<>&\x00\x1b\u2028") || !bytes.Contains([]byte(a.Header.Get("Content-Type")),
			[]byte("json")) {
			t.Errorf("%d: %s %q", i, a.Header.Get("Content-Type"), a.body)
		}
	}
}

// A refusal does not repeat a body, in which a password may be.
func TestPasswordIsNotRepeated(t *testing.T) {
	r := newRig(t)
	for _, body := range []string{`{"login":"x","password":"hunter2","colour":1}`, `{"login":1,"password":"hunter2"}`,
		`{"login":"x","password":"hunter2"`, `{"login":"x","password":{"a":"hunter2"}}`} {
		got := r.do(admin, request(http.MethodPost, "/logins", body))
		if got.StatusCode < 400 || bytes.Contains(got.body, []byte("hunter2")) || strings.Contains(r.log.String(),
			"hunter2") {
			t.Errorf("%s: %d %s", body, got.StatusCode, got.body)
		}
	}
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[{"b":1}],"c":null}`, `{"a":1,"a":2}`, `[`, `{"a":"\ud800"}`,
		"{\"\xff\":1}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkJSON(body) != nil {
			return
		}
		var v map[string]any
		if err := jsonFormat.Unmarshal(body, &v); err != nil {
			t.Fatalf("%q is let through, and is not JSON: %v", body, err)
		}
	})
}
