package alert

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/local"
	"postern/mail"
)

// Hook is a URL that alerts are posted to.
type Hook struct {
	Name     string         // for the log, such as alert[1]
	URL      string         // all but its host is secret; see CheckURL
	Events   []Event        // empty: all
	QueueAge time.Duration  // the threshold of QueueAge
	RootCAs  *x509.CertPool // nil: the system's
	// Local, unless nil, takes alerts in this process: there is no URL.
	Local func(context.Context, Document) error

	dial func(context.Context, string, string) (net.Conn, error) // for tests
}

// Format keeps the URL out of anything printed.
func (h Hook) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s (%s)", h.Name, h.Host()) }

// key tells hooks apart.
func (h Hook) key() string {
	if h.Local != nil {
		return "local " + h.Name
	}
	return h.URL
}

// Host returns the part of the URL that is not secret.
func (h Hook) Host() string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// errURL does not quote what was written: it may be part of a secret.
var errURL = errors.New("is not the address of a hook, write one that begins with https://; " +
	"http:// is for this machine only, such as http://127.0.0.1:8080/")

// CheckURL checks the URL of a hook. Alerts say a lot about a relay, so they never cross a network unencrypted.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" || text != strings.TrimSpace(text) {
		return errURL
	}
	if _, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16); err != nil {
		return errURL
	}
	if u.Scheme == "https" || u.Scheme == "http" && local.Host(u.Hostname()) {
		return nil
	}
	return errURL
}

// result is the outcome of a post.
type result struct {
	err   error         // nil: taken
	final bool          // a retry would be refused too
	after time.Duration // the hook's Retry-After

	elsewhere bool      // another node tells the hook
	since     time.Time // when the condition began there
}

// Bounds of a post.
const (
	postTime  = 10 * time.Second // from dialling to the answer
	maxHeader = 64 << 10         // octets
	maxReason = 200              // octets of the reason shown
	maxBody   = 8 << 10          // octets read of a refusal's body
)

// Post sends a test to a hook, once, and returns why it was not taken.
func Post(ctx context.Context, h Hook, host string) error {
	now := time.Now()
	d := documentOf(host, now, &entry{Since: now, Condition: Condition{
		Event: Test, Subject: h.Name,
		Summary: "This is a test: alerts of this relay arrive here. There is nothing to do.",
		Details: map[string]string{},
	}}, false)
	return post(ctx, h, d.encode()).err
}

// post sends one document on a connection of its own: alerts are rare.
func post(ctx context.Context, h Hook, body []byte) result {
	if err := CheckURL(h.URL); err != nil {
		return result{err: err, final: true}
	}
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return result{err: errURL, final: true}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Postern")
	if user := req.URL.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	// A bare Transport follows no redirects: the document was meant for this address.
	t := h.transport(req.URL)
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", postTime)
		}
		if strings.Contains(err.Error(), "malformed") { // the error quotes what came, escaped, so scrub would miss it
			err = errors.New("the server there does not speak HTTP")
		}
		return result{err: errors.New(shown(scrub(req.URL, err.Error())))}
	}
	defer resp.Body.Close()
	return resultOf(req.URL, resp, time.Now())
}

func (h Hook) transport(u *url.URL) *http.Transport {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: h.dial,
		DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: h.RootCAs, MinVersion: tls.VersionTLS12},
	}
	if u.Scheme == "http" { // localhost is a name, and a name can resolve to anything
		t.DialContext = (&net.Dialer{Control: onlyLoopback}).DialContext
	}
	return t
}

func onlyLoopback(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err == nil && !to.Addr().Unmap().IsLoopback() {
		err = fmt.Errorf("%s is not this machine, write https://", to.Addr())
	}
	return err
}

// resultOf reads an answer. The body of a 2yz is not read.
func resultOf(u *url.URL, resp *http.Response, now time.Time) result {
	code := resp.StatusCode
	if code >= 200 && code < 300 {
		return result{}
	}
	r := result{after: retryAfter(resp.Header.Get("Retry-After"), now)}
	switch {
	case code >= 300 && code < 400:
		r.final = true
		r.err = fmt.Errorf("the hook answered %d: redirects are not followed; write the address it redirects to", code)
		return r
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
	case code < 500:
		r.final = true
	}
	r.err = fmt.Errorf("the hook answered %d %s", code, http.StatusText(code))
	if why := reason(u, resp.Body); why != "" {
		r.err = fmt.Errorf("%w: %s", r.err, why)
	}
	return r
}

// reason reads why a hook refused, as far as it arrives in time.
func reason(u *url.URL, body io.Reader) string {
	b, err := io.ReadAll(io.LimitReader(body, maxBody))
	text := scrub(u, string(b))
	if err != nil || len(b) == maxBody { // cut off: the end may be part of a secret, which scrub does not recognise
		text = text[:max(0, len(text)-len(u.String()))]
	}
	return shown(strings.Join(strings.Fields(text), " "))
}

func shown(text string) string { return mail.Printable(mail.Cut(text, maxReason)) }

// retryAfter reads RFC 9110 §10.2.3: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}

// minPiece is the shortest part of a URL that counts as secret; shorter ones are words such as "v1".
const minPiece = 4

// scrub removes the secret parts of a URL from an outside text: a server may quote an unknown path or the whole
// request.
func scrub(u *url.URL, text string) string {
	pieces := []string{u.Path, u.EscapedPath(), u.RawQuery, u.Fragment}
	pieces = append(pieces, strings.Split(u.Path, "/")...)
	pieces = append(pieces, strings.Split(u.EscapedPath(), "/")...)
	for k, values := range u.Query() {
		pieces = append(append(pieces, k), values...)
	}
	for part := range strings.FieldsFuncSeq(u.RawQuery, func(r rune) bool { return r == '&' || r == '=' }) {
		pieces = append(pieces, part)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		pieces = append(pieces, u.User.String(), u.User.Username(), password)
	}
	slices.SortFunc(pieces, func(a, b string) int { return len(b) - len(a) })
	for _, p := range pieces {
		if len(strings.Trim(p, "/")) >= minPiece {
			text = replaceFold(text, p)
		}
	}
	return text
}

// replaceFold removes p, whatever its case.
func replaceFold(text, p string) string {
	var b strings.Builder
	for {
		i := indexFold(text, p)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i] + "[secret]")
		text = text[i+len(p):]
	}
}

func indexFold(text, p string) int {
	for i := 0; i+len(p) <= len(text); i++ {
		if strings.EqualFold(text[i:i+len(p)], p) {
			return i
		}
	}
	return -1
}
