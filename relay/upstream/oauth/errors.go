package oauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"postern/mail"
	"postern/relay/upstream/internal/whytls"
	"postern/relay/upstream/via"
)

// Error is why there is no token.
type Error struct {
	// Class is mail.BackPressure (it passes) or mail.AccountFault (a person must mend it).
	Class mail.Class
	// Code is what the trouble is called where it comes from: "AADSTS7000222", "invalid_grant", "HTTP 503", or a word
	// of ours.
	Code string
	// Cause and Fix are for people. Fix is empty where waiting is the fix.
	Cause, Fix string
	// Detail is what the server said, made printable and bounded.
	Detail string
	// Retry is when it is tried again at the earliest.
	Retry time.Time
	// Err is what happened inside, if anything did.
	Err error

	status     int
	retryAfter time.Duration
	oauthCode  string // the "error" member of RFC 6749 §5.2
	about      string // the grant that it is about, see aboutGrant
	appFix     string // see known
}

func (e *Error) Error() string {
	s := e.Cause
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether waiting is enough.
func (e *Error) Temporary() bool { return e.Class != mail.AccountFault }

// The longest texts that are kept of what a server says.
const (
	maxCode   = 64
	maxDetail = 400
)

// Codes of our own.
const (
	codeNoGrant     = "no_grant"
	codeStore       = "store"
	codeUnreachable = "unreachable"
	codeCertificate = "tls_certificate"
	codeGarbled     = "no_token_response"
	codeStopped     = "stopped"
)

func (s *Source) fault(code, cause, fix string) *Error {
	return &Error{Class: mail.AccountFault, Code: code, Cause: cause, Fix: s.names.Replace(fix)}
}

func pressureError(code, cause string, err error) *Error {
	return &Error{Class: mail.BackPressure, Code: code, Cause: cause, Err: err}
}

// answer is what a server said instead of a token (RFC 6749 §5.2 and Microsoft's additions). Texts are bounded and
// printable.
type answer struct {
	status     int
	code       string // "error"
	detail     string // "error_description"
	sub        string // "suberror" (Microsoft), "error_subtype" (Google)
	page       bool   // a web page, which no token endpoint answers with
	numbers    []int  // Microsoft's AADSTS numbers, the one in the text first
	retryAfter time.Duration
}

// parseAnswer reads an error response. It takes anything.
func parseAnswer(status int, header http.Header, body []byte, now time.Time) answer {
	a := answer{status: status, retryAfter: retryAfter(header.Get("Retry-After"), now)}
	body = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(body), []byte("\ufeff")))
	var list []json.RawMessage
	if json.Unmarshal(body, &list) == nil && len(list) > 0 { // so does Google, now and then
		body = list[0]
	}
	var j struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
		Codes       []int           `json:"error_codes"`
		Suberror    string          `json:"suberror"`
		Subtype     string          `json:"error_subtype"`
		Claims      json.RawMessage `json:"claims"`
	}
	if err := json.Unmarshal(body, &j); err == nil {
		a.code, a.detail, a.sub, a.numbers = rawCode(j.Error), j.Description, j.Suberror+j.Subtype, j.Codes
		a.detail = cmp.Or(a.detail, rawMessage(j.Error))
		if len(j.Claims) > 0 {
			a.sub += " with claims"
		}
	} else if bytes.HasPrefix(body, []byte("<")) {
		a.page = true
	} else if form, err := url.ParseQuery(string(body)); err == nil && form.Has("error") {
		a.code, a.detail = form.Get("error"), form.Get("error_description")
	}
	if n, ok := aadsts(a.detail); ok {
		a.numbers = append([]int{n}, a.numbers...)
	}
	if len(a.numbers) > 8 {
		a.numbers = a.numbers[:8]
	}
	a.code = mail.Cut(mail.Printable(a.code), maxCode)
	a.sub = mail.Cut(mail.Printable(a.sub), maxCode)
	a.detail = mail.Cut(mail.Printable(strings.Join(strings.Fields(a.detail), " ")), maxDetail)
	return a
}

// googleError is "error" as Google's newer services have it.
type googleError struct {
	Status, Message string
	Errors          []struct{ Reason string }
}

// rawCode takes "error" as the RFC has it, and as an object with a reason, such as rateLimitExceeded, or a status.
func rawCode(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var object googleError
	_ = json.Unmarshal(raw, &object) // what it is not, stays empty
	if len(object.Errors) > 0 && object.Errors[0].Reason != "" {
		return strings.ToLower(capital.ReplaceAllString(object.Errors[0].Reason, "${1}_$2"))
	}
	return strings.ToLower(object.Status)
}

var capital = regexp.MustCompile(`([a-z])([A-Z])`)

func rawMessage(raw json.RawMessage) string {
	var object googleError
	_ = json.Unmarshal(raw, &object)
	return object.Message
}

// aadsts finds Microsoft's number in "AADSTS7000215: Invalid client secret...".
func aadsts(text string) (int, bool) {
	_, rest, found := strings.Cut(text, "AADSTS")
	if !found {
		return 0, false
	}
	end := 0
	for end < len(rest) && end < 10 && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(rest[:end])
	return n, err == nil
}

// maxRetryAfter bounds what a server may make us wait.
const maxRetryAfter = time.Hour

// retryAfter reads RFC 9110 §10.2.3: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// classify says whose matter an answer is. Microsoft warns that numbers and texts change; a number that is not in the
// table is classified by its "error" member, which is what RFC 6749 promises.
func classify(a answer) *Error {
	e := &Error{Detail: a.detail, status: a.status, retryAfter: a.retryAfter, oauthCode: a.code}
	for _, n := range a.numbers {
		if k, ok := lookup("AADSTS"+strconv.Itoa(n), a); ok {
			return k.into(e)
		}
	}
	if passing(a) {
		e.Class, e.Code = mail.BackPressure, a.name()
		e.Cause = "the authorization server has a passing problem, or is asked too often"
		return e
	}
	if k, ok := lookup(a.code, a); ok {
		k.into(e)
		e.Code = a.name()
		return e
	}
	return classifyStatus(a, e)
}

// Words of troubles that pass, in the "error" member and in what goes with it.
var (
	passingCode = regexp.MustCompile(`internal|temporar|unavailable|time_?d?_?out|backend|transient|rate_?limit|` +
		`too_many|quota|limit_exceeded|overload|try_again|retry`)
	passingText = regexp.MustCompile(`(?i)transient|temporar(il)?y|timed out|time-?out|too many requests|throttl|` +
		`server is (too )?busy|(service|server) (is )?(currently )?(unavailable|overloaded)|` +
		`internal (server )?(error|failure)|rate limit|BudgetExceeded`)
)

// passing reports an answer that says of itself that waiting helps. A number or a member that the table knows better is
// not asked.
func passing(a answer) bool {
	k, known := lookup(a.code, a)
	if !known && passingCode.MatchString(strings.ToLower(a.code)) {
		return true
	}
	return a.code != "" && !k.Passes && passingText.MatchString(a.detail)
}

// name is what an answer calls its trouble.
func (a answer) name() string {
	switch {
	case len(a.numbers) > 0:
		return "AADSTS" + strconv.Itoa(a.numbers[0])
	case a.code != "":
		return a.code
	}
	return fmt.Sprintf("HTTP %d", a.status)
}

// classifyStatus classifies what the table does not know. Only what is plainly our request's fault is an account fault.
func classifyStatus(a answer, e *Error) *Error {
	e.Class, e.Code = mail.BackPressure, fmt.Sprintf("HTTP %d", a.status)
	e.Cause = fmt.Sprintf("the token endpoint answers %s", e.Code)
	switch {
	case a.page && a.status != http.StatusNotFound && (a.status < 300 || a.status >= 400) && a.status < 500:
		e.Cause = fmt.Sprintf("a web page comes in place of a token (%s): a proxy, a firewall or a guest network "+
			"answers for {host}", e.Code)
		e.Fix = "let this machine out to {host}, port 443, and look at HTTPS_PROXY and proxy"
	case a.status >= 300 && a.status < 400:
		e.Class, e.Cause = mail.AccountFault, "the token endpoint sends us elsewhere, and secrets do not follow"
		e.Fix = "set token_url to the address of the token endpoint itself"
	case a.status >= 500, a.status == http.StatusTooManyRequests, a.status == http.StatusRequestTimeout:
	case a.code != "":
		e.Class, e.Code, e.Cause = mail.AccountFault, a.name(), "the token endpoint refuses the request: "+a.code
		e.Fix = "see what it said, and correct [upstream.oauth] for {name}"
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed:
		e.Class, e.Cause = mail.AccountFault, "there is no token endpoint at this address"
		e.Fix = "check tenant and token_url in [upstream.oauth] for {name}"
	}
	return e
}

// explain makes an *Error of whatever golang.org/x/oauth2 or the network came back with. The original is not kept where
// it could hold what was sent or received.
func (s *Source) explain(ctx context.Context, err error, now time.Time) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		e := classify(parseAnswer(refused.Response.StatusCode, refused.Response.Header, refused.Body, now))
		e.Cause, e.Fix = s.names.Replace(e.Cause), s.names.Replace(s.fixFor(e))
		return e
	}
	return s.explainNetwork(ctx, err)
}

// fixFor is the fix for the flow in use: where no person logs in, none can log in again.
func (s *Source) fixFor(e *Error) string {
	switch {
	case s.o.Flow.Delegated():
		return e.Fix
	case e.appFix != "":
		return e.appFix
	}
	fix := strings.TrimSuffix(strings.TrimSuffix(e.Fix, fixLogin), "; then ")
	switch {
	case fix != "" && !strings.Contains(fix, "postern upstream login"):
		return fix
	case s.o.Flow == ServiceAccount:
		return "check the key in service_account_file, and Domain-wide delegation in the Google Admin console"
	}
	return "the application logs in by itself, so look at it: in the Entra admin center Enterprise applications, " +
		"application {client}, Sign-in logs, Service principal sign-ins"
}

// tokenHost is where tokens come from.
func tokenHost(p *provider) string {
	if u, err := url.Parse(p.endpoint.TokenURL); err == nil && u.Host != "" {
		return u.Host
	}
	return "the token endpoint"
}

func (s *Source) explainNetwork(ctx context.Context, err error) *Error {
	host := tokenHost(s.p)
	var (
		proxy        *via.Error
		verification *tls.CertificateVerificationError
		wrapped      *url.Error
		netErr       net.Error
	)
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the URL says nothing new
	}
	switch {
	case errors.As(err, &proxy) && !errors.Is(err, context.Canceled):
		return pressureError(codeUnreachable, host+" cannot be reached: "+proxy.Error(), err)
	case errors.As(err, &verification):
		e := s.fault(codeCertificate,
			"the TLS certificate of "+host+" does not verify: "+whytls.Certificate(verification, host, time.Now()),
			"if a proxy of yours inspects TLS, add its certificate to ca_file; else check the clock and the address")
		e.Err = verification.Err
		return e
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return pressureError(codeStopped, "asking "+host+" was given up", context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return pressureError(codeUnreachable, host+" does not answer in time", context.DeadlineExceeded)
	case wrapped != nil:
		return pressureError(codeUnreachable, host+" cannot be reached: "+mail.Cut(mail.Printable(err.Error()),
			maxDetail), err)
	}
	return pressureError(codeGarbled, host+" answers something that is not a token", nil)
}
