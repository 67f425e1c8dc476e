package fakeprovider

import (
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
)

// sendMail goes through the checks in the order of the real one, as far as it is known: token, permission, mailbox,
// size, encoding, sender, recipients, limits.
func (g *Graph) sendMail(r *http.Request, c call) *graphReply {
	if contentType(r) != "text/plain" {
		return refuse(415, "RequestBodyRead", "The fake takes MIME only.")
	}
	octets, failed := g.mimeOf(r)
	if failed != nil {
		return failed
	}
	a := GraphArrival{Mailbox: c.mailbox, MIME: octets, RequestID: c.id}
	if failed := g.read(&a); failed != nil {
		return failed
	}
	return g.take(a)
}

func contentType(r *http.Request) string {
	ct, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return ct
}

// mimeOf reads MIME in base64.
func (g *Graph) mimeOf(r *http.Request) ([]byte, *graphReply) {
	raw, failed := g.body(r, g.o.MaxRequest)
	if failed != nil {
		return nil, failed
	}
	octets, err := base64.StdEncoding.DecodeString(string(raw))
	if err != nil {
		return nil, refuse(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
	}
	return octets, nil
}

// body reads a request of at most so many octets.
func (g *Graph) body(r *http.Request, most int64) ([]byte, *graphReply) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	switch {
	case err != nil:
		return nil, refuse(400, "BadRequest", "The request was cut.")
	case int64(len(raw)) > most:
		return nil, refuse(413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.")
	}
	return raw, nil
}

func (g *Graph) authorize(r *http.Request, c call) *graphReply {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	access := AccessInvalid
	if token != "" {
		access = c.access(token, c.mailbox)
	}
	exists := func(m string) bool { return strings.EqualFold(m, c.mailbox) }
	switch {
	case access == AccessInvalid:
		return refuse(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
	case access == AccessDenied:
		return refuse(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
	case len(g.o.Mailboxes) > 0 && !slices.ContainsFunc(g.o.Mailboxes, exists):
		return refuse(404, "ErrorInvalidUser", "The requested user '"+c.mailbox+"' is invalid.")
	}
	return nil
}

func sendAsDenied() *graphReply {
	return refuse(403, "ErrorSendAsDenied", "The user account which was used to submit this request does not have "+
		"the right to send mail on behalf of the specified sending account., Cannot submit message.")
}

// read derives sender and recipients from the header, which is all that the real one has.
func (g *Graph) read(a *GraphArrival) *graphReply {
	m, err := netmail.ReadMessage(strings.NewReader(string(a.MIME)))
	if err != nil {
		return refuse(400, "ErrorMimeContentInvalid", "The MIME content is invalid.")
	}
	from, err := m.Header.AddressList("From")
	if err != nil || !g.maySend(a.Mailbox, from) {
		return sendAsDenied()
	}
	for _, field := range []string{"To", "Cc", "Bcc"} {
		for _, to := range everybody(m.Header.Get(field)) {
			if !slices.Contains(a.Recipients, to) {
				a.Recipients = append(a.Recipients, to)
			}
		}
	}
	return nil
}

var likeAddress = regexp.MustCompile(`[^\s<>,;:"'()]+@[^\s<>,;:"'()]+`)

// everybody reads a list of addresses, and one that is none as the worst reader would: whatever looks like an address
// is one.
func everybody(value string) []string {
	var found []string
	list, err := netmail.ParseAddressList(value)
	if err != nil {
		found = likeAddress.FindAllString(value, -1)
	}
	for _, a := range list {
		found = append(found, a.Address)
	}
	for i := range found {
		found[i] = strings.ToLower(found[i])
	}
	return found
}

func (g *Graph) maySend(mailbox string, from []*netmail.Address) bool {
	return g.o.SendAs == nil || !slices.ContainsFunc(from, func(f *netmail.Address) bool {
		same := func(s string) bool { return strings.EqualFold(s, f.Address) }
		return !same(mailbox) && !slices.ContainsFunc(g.o.SendAs[mailbox], same)
	})
}

// take keeps to the limits and enters the message in the ledger.
func (g *Graph) take(a GraphArrival) *graphReply {
	if len(a.Recipients) == 0 {
		return refuse(400, "ErrorInvalidRecipients",
			"At least one recipient is not valid., A message can't be sent because it contains no recipients.")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a.At = g.o.Now()
	times := slices.DeleteFunc(g.taken[a.Mailbox], func(t time.Time) bool { return a.At.Sub(t) >= 24*time.Hour })
	g.taken[a.Mailbox] = times
	if g.o.PerDay > 0 && len(times) >= g.o.PerDay {
		return refuse(403, "ErrorExceededMessageLimit",
			"Cannot send mail. Daily Message/Recipient limit exceeded., Cannot submit message.")
	}
	if n := g.o.PerMinute; n > 0 && len(times) >= n && a.At.Sub(times[len(times)-n]) < time.Minute {
		over := refuse(429, "ApplicationThrottled", "Application is over its request limit.")
		over.retryAfter = fmt.Sprint(math.Ceil((time.Minute - a.At.Sub(times[len(times)-n])).Seconds()))
		return over
	}
	g.taken[a.Mailbox] = append(times, a.At)
	g.arrivals = append(g.arrivals, a)
	return &graphReply{status: http.StatusAccepted}
}
