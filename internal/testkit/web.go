package testkit

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Answer is what a server answered, read whole.
type Answer struct {
	*http.Response
	Text string
}

// Ask makes a request; a form makes it a POST. Header fields are pairs; Host is one of them.
func Ask(t testing.TB, c *http.Client, target string, form url.Values, header ...string) Answer {
	t.Helper()
	method, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Answer{resp, string(all)}
}

// Want expects a status, and a text in the answer or its Location.
func (a Answer) Want(t testing.TB, what string, status int, text string) {
	t.Helper()
	if a.StatusCode != status || !strings.Contains(a.Text+a.Header.Get("Location"), text) {
		t.Errorf("%s: %d %s\n%s\nwant %d and %q", what, a.StatusCode, a.Header.Get("Location"), a.Text, status, text)
	}
}
