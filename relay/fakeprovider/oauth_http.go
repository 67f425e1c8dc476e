package fakeprovider

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strings"

	"postern/internal/periodic"
)

// problem is an answer of RFC 6749 §5.2.
type problem struct {
	status      int
	code        string
	description string
	aadsts      int // for servers that look like Microsoft's
}

func (p *problem) Error() string { return p.code + ": " + p.description }

func bad(code string, aadsts int, format string, args ...any) *problem {
	status := http.StatusBadRequest
	if code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	return &problem{status, code, fmt.Sprintf(format, args...), aadsts}
}

const maxBody = 64 << 10

// ServeHTTP is the whole server.
func (a *OAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint := endpointOf(r.URL.Path)
	if endpoint == "" {
		http.NotFound(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "bad form", http.StatusBadRequest)
		return
	}
	fault, failing := a.meet(endpoint, r.PostForm.Get("grant_type"))
	if failing {
		if periodic.Sleep(r.Context(), fault.Delay) != nil {
			return
		}
		if fault.plays(w, a.microsoft()) {
			return
		}
	}
	if failing && fault.Drop { // after work: the answer is lost, what it changed is not
		a.serve(nowhere{http.Header{}}, r, endpoint)
		panic(http.ErrAbortHandler)
	}
	a.serve(w, r, endpoint)
}

func endpointOf(path string) string {
	switch {
	case strings.HasSuffix(path, "/token"):
		return "token"
	case strings.HasSuffix(path, "/devicecode"), strings.HasSuffix(path, "/device/code"):
		return "device"
	case strings.HasSuffix(path, "/authorize"), strings.HasSuffix(path, "/auth"):
		return "authorize"
	}
	return ""
}

func (a *OAuth) serve(w http.ResponseWriter, r *http.Request, endpoint string) {
	if endpoint == "authorize" {
		a.authorize(w, r)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	answer, err := a.answer(r, endpoint)
	if err != nil {
		err.write(w, a.microsoft())
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (a *OAuth) answer(r *http.Request, endpoint string) (map[string]any, *problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if endpoint == "device" {
		return a.deviceLocked(r)
	}
	return a.tokenLocked(r)
}

func (a *OAuth) microsoft() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.o.Microsoft
}

// meet counts the request and takes the fault that it meets.
func (a *OAuth) meet(endpoint, grantType string) (Fault, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[endpoint]++
	if endpoint == "token" {
		a.counts["token:"+grantType]++
	}
	for i := range a.faults {
		f := &a.faults[i]
		if f.Endpoint != "" && f.Endpoint != endpoint || f.Times < 0 {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		return *f, true
	}
	return Fault{}, false
}

// plays answers instead of the server, if the fault is of that kind.
func (f Fault) plays(w http.ResponseWriter, microsoft bool) bool {
	switch {
	case f.Drop && !f.AfterWork:
		panic(http.ErrAbortHandler)
	case f.Error != "" || f.AADSTS > 0:
		p := bad(f.Error, f.AADSTS, "%s", f.Description)
		p.code = cmp.Or(p.code, "invalid_grant")
		if f.Status > 0 {
			p.status = f.Status
		}
		p.write(w, microsoft)
	case f.Status > 0:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(f.RetryAfter))
		}
		if f.Status/100 == 3 {
			w.Header().Set("Location", f.Body)
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
	default:
		return false
	}
	return true
}

func (p *problem) write(w http.ResponseWriter, microsoft bool) {
	body := map[string]any{"error": p.code, "error_description": p.description}
	if microsoft && p.aadsts > 0 {
		body["error_description"] = fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: "+
			"0b7a5d5c-0000-4f6e-8b1a-0123456789ab\r\nCorrelation ID: "+
			"2f9d3c1e-0000-4a7b-9c2d-0123456789ab\r\nTimestamp: 2026-09-01 08:00:00Z", p.aadsts, p.description)
		body["error_codes"] = []int{p.aadsts}
		body["trace_id"] = "0b7a5d5c-0000-4f6e-8b1a-0123456789ab"
		body["correlation_id"] = "2f9d3c1e-0000-4a7b-9c2d-0123456789ab"
	}
	writeJSON(w, p.status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store") // RFC 6749 §5.1
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// page is what a browser shows.
var page = template.Must(template.New("page").Parse(`<!doctype html><meta charset="utf-8"><title>Fake provider</title>
<body style="font: 18px/1.5 sans-serif; max-width: 36em; margin: 4em auto"><h1>Fake provider</h1>
<p>The application {{.Client}} wants to send mail for you ({{.Scope}}).</p>
<form method="post"><input name="identity" value="{{.Hint}}" placeholder="you@example.com" autofocus>
<button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>
`))

// nowhere is where a lost answer goes.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
