package graph

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// Bounds of what is kept of an answer, in octets, and of what is looked for in it.
const (
	maxAnswer  = 64 << 10
	maxCode    = 64
	maxMessage = 600
	maxID      = 64
	maxCodes   = 4
	maxNesting = 8
)

// maxRetryAfter bounds what an answer may ask for.
const maxRetryAfter = day

// answer is what Graph said, or what stands between. Texts are bounded and printable.
type answer struct {
	status int
	// of the error and of those wrapped in it, the outermost first; none if the body is no error of Graph's
	codes      []string
	message    string // theirs
	page       bool   // the body is a web page: a proxy, a firewall or a gateway speaks
	requestID  string
	retryAfter time.Duration
}

func (a *answer) accepted() bool { return a.status == http.StatusAccepted }

func (a *answer) hasCode(code string) bool {
	switch code {
	case "-":
		return len(a.codes) == 0
	case "<":
		return len(a.codes) == 0 && a.page
	}
	return slices.ContainsFunc(a.codes, func(c string) bool { return strings.EqualFold(c, code) })
}

// words are the answer as the trace keeps it.
func (a *answer) words() string {
	var b strings.Builder
	b.WriteString("HTTP " + strconv.Itoa(a.status))
	if text := http.StatusText(a.status); len(a.codes) == 0 && text != "" {
		b.WriteString(" " + text)
	}
	if len(a.codes) > 0 {
		b.WriteString(" " + strings.Join(a.codes, "/"))
	}
	switch {
	case a.page && a.message != "":
		b.WriteString(`, with the web page "` + a.message + `"`)
	case a.page:
		b.WriteString(", with a web page")
	case a.message != "":
		b.WriteString(": " + a.message)
	}
	if a.requestID != "" {
		b.WriteString(" (request-id " + a.requestID + ")")
	}
	return b.String()
}

// readAnswer takes anything.
func readAnswer(status int, h http.Header, body []byte, now time.Time) *answer {
	a := &answer{status: status, requestID: h.Get("request-id"), retryAfter: retryAfter(h.Get("Retry-After"), now)}
	body = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(body), []byte("\ufeff")))
	var messages []string
	var tree any
	switch {
	case json.Unmarshal(body, &tree) == nil:
		w := wrapped{a: a}
		w.read(tree, 0)
		messages = w.messages
	case bytes.HasPrefix(body, []byte("<")), strings.HasPrefix(h.Get("Content-Type"), "text/html"):
		a.page = true
		messages = []string{title(body)}
	}
	if strings.Contains(h.Get("WWW-Authenticate"), "insufficient_claims") {
		a.addCode("insufficient_claims")
	}
	a.message = mail.Cut(mail.Printable(strings.Join(strings.Fields(strings.Join(messages, "; ")), " ")), maxMessage)
	a.requestID = mail.Cut(mail.Printable(a.requestID), maxID)
	return a
}

func (a *answer) addCode(code string) {
	code = mail.Cut(mail.Printable(strings.TrimSpace(code)), maxCode)
	if code != "" && len(a.codes) < maxCodes && !a.hasCode(code) {
		a.codes = append(a.codes, code)
	}
}

// wrapped collects codes and messages from the forms that errors come in: Graph's {"error":{code, message,
// innerError}}, OData's {"odata.error":{code, message:{value}}}, OAuth's {"error":"code","error_description":"…"}, the
// responses of a batch, and any of them as a JSON text in the message of another.
type wrapped struct {
	a        *answer
	messages []string
}

// The members that an error may be within, in the order in which they are looked at.
var wrappers = []string{"error", "odata.error", "innererror", "responses", "body", "details"}

func (w *wrapped) read(v any, depth int) {
	if depth > maxNesting {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, one := range v[:min(len(v), maxCodes)] {
			w.read(one, depth+1)
		}
	case map[string]any:
		w.readObject(v, depth)
	}
}

func (w *wrapped) readObject(v map[string]any, depth int) {
	lower := make(map[string]any, len(v))
	for name, member := range v {
		lower[strings.ToLower(name)] = member
	}
	if code, ok := lower["code"].(string); ok {
		w.a.addCode(code)
	}
	if code, ok := lower["error"].(string); ok && !w.unpack(code, depth) { // RFC 6749 §5.2
		w.a.addCode(code)
	}
	for _, name := range []string{"message", "error_description"} {
		text := lower[name]
		if inner, ok := text.(map[string]any); ok {
			text = inner["value"]
		}
		if s, ok := text.(string); ok && !w.unpack(s, depth) {
			w.say(s)
		}
	}
	if id, ok := lower["request-id"].(string); ok && w.a.requestID == "" {
		w.a.requestID = id
	}
	for _, name := range wrappers {
		if s, ok := lower[name].(string); ok && name != "error" {
			w.unpack(s, depth)
			continue
		}
		w.read(lower[name], depth+1)
	}
}

// unpack reads a text that is JSON itself.
func (w *wrapped) unpack(text string, depth int) bool {
	text = strings.TrimSpace(text)
	var tree any
	if depth >= maxNesting || !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &tree) != nil {
		return false
	}
	w.read(tree, depth+1)
	return true
}

func (w *wrapped) say(text string) {
	if text != "" && !slices.Contains(w.messages, text) && len(w.messages) < maxCodes {
		w.messages = append(w.messages, text)
	}
}

var titleOf = regexp.MustCompile(`(?is)<title[^>]*>(.{0,200}?)</title`)

// title is what a web page calls itself, or what it says where that is short.
func title(page []byte) string {
	if m := titleOf.FindSubmatch(page); m != nil {
		return html.UnescapeString(string(m[1]))
	}
	return ""
}

// retryAfter reads Retry-After (RFC 9110 §10.2.3): seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if n, err := strconv.ParseFloat(value, 64); err == nil {
		if !(n > 0) {
			return 0
		}
		return time.Duration(min(n, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
