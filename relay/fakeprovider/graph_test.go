package fakeprovider

import (
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

const graphURL = "https://graph.example.com/v1.0/users/Office@example.com/sendMail"

func postMail(t *testing.T, g *Graph, url, token, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Transport: testkit.Transport(g)}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func encoded(message string) string { return base64.StdEncoding.EncodeToString([]byte(message)) }

const graphMail = "From: office@example.com\r\nTo: A <a@example.org>, a@example.org\r\nBcc: " +
	"B@example.net\r\n\r\nhello\r\n"

func TestGraphReadsRecipientsFromTheHeader(t *testing.T) {
	g := NewGraph(GraphOptions{})
	if res := postMail(t, g, graphURL, "x", encoded(graphMail)); res.StatusCode != 202 ||
		res.Header.Get("request-id") == "" {
		t.Fatalf("%s", res.Status)
	}
	a := g.Arrivals()
	if len(a) != 1 || a[0].Mailbox != "office@example.com" || string(a[0].MIME) != graphMail ||
		!slices.Equal(a[0].Recipients, []string{"a@example.org", "b@example.net"}) {
		t.Errorf("%+v", a)
	}
}

func TestGraphRefuses(t *testing.T) {
	g := NewGraph(GraphOptions{
		Mailboxes: []string{"office@example.com"}, SendAs: map[string][]string{}, MaxRequest: 1000,
		Token: func(token, _ string) Access {
			return map[string]Access{"good": AccessGranted, "weak": AccessDenied}[token]
		},
	})
	for name, c := range map[string]struct {
		url, token, body string
		status           int
		code             string
	}{
		"token":      {graphURL, "old", encoded(graphMail), 401, "InvalidAuthenticationToken"},
		"permission": {graphURL, "weak", "!!!!", 403, "ErrorAccessDenied"},
		"mailbox": {strings.Replace(graphURL, "Office", "nobody", 1), "good", encoded(graphMail), 404,
			"ErrorInvalidUser"},
		"path":   {graphURL + "s", "good", encoded(graphMail), 404, "ResourceNotFound"},
		"size":   {graphURL, "good", strings.Repeat("A", 1001), 413, "RequestEntityTooLarge"},
		"base64": {graphURL, "good", "!!!!", 400, "ErrorMimeContentInvalidBase64String"},
		"sender": {graphURL, "good", encoded(strings.Replace(graphMail, "office@", "boss@", 1)), 403,
			"ErrorSendAsDenied"},
		"recipients": {graphURL, "good", encoded("From: office@example.com\r\n\r\n"), 400, "ErrorInvalidRecipients"},
	} {
		res := postMail(t, g, c.url, c.token, c.body)
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != c.status || !strings.Contains(string(body), `"code":"`+c.code+`"`) {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
	}
	if len(g.Arrivals()) != 0 {
		t.Errorf("%d arrivals", len(g.Arrivals()))
	}
}

func TestGraphThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGraph(GraphOptions{Concurrency: 2, PerMinute: 3, Latency: time.Second})
		codes := make(chan int)
		for range 3 {
			go func() { codes <- postMail(t, g, graphURL, "x", encoded(graphMail)).StatusCode }()
		}
		got := []int{<-codes, <-codes, <-codes}
		slices.Sort(got)
		if !slices.Equal(got, []int{202, 202, 429}) || g.MostAtOnce("office@example.com") != 3 {
			t.Errorf("at once: %v, %d", got, g.MostAtOnce("office@example.com"))
		}
		postMail(t, g, graphURL, "x", encoded(graphMail))
		res := postMail(t, g, graphURL, "x", encoded(graphMail))
		if res.StatusCode != 429 || res.Header.Get("Retry-After") != "58" {
			t.Errorf("%s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
		}
		time.Sleep(58 * time.Second)
		if res := postMail(t, g, graphURL, "x", encoded(graphMail)); res.StatusCode != 202 {
			t.Errorf("after the wait: %s", res.Status)
		}
	})
}
