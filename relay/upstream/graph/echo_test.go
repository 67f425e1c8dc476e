package graph

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"postern/relay/fakeprovider"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Graph has been seen to repeat the bearer token in a 400. It stands in no result, so in no trace, log or report.
func TestTheTokenDoesNotComeBack(t *testing.T) {
	token := "eyJ0eXAiOiJKV1QiLCJub25jZSI6I" + strings.Repeat("kF7xQ2w_z9", 150)
	for name, body := range map[string]string{
		"whole": `{"error":{"code":"InvalidAuthenticationToken","message":"Bearer %[1]s is no token"}}`,
		"at the cut": `{"error":{"code":"ErrorInvalidRequest","message":"` + strings.Repeat("x", maxMessage-20) +
			`%[1]s"}}`,
		"as code": `{"error":{"code":"%[1]s","message":"no"}}`,
		"as HTML": `<html>%[1]s</html>`,
	} {
		for _, status := range []int{400, 401, 403, 500} {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, _ := connected(t, fake, func(o *Options) {
				o.Token = func(context.Context, string) (string, error) { return token, nil }
				o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					io.Copy(io.Discard, r.Body)
					return &http.Response{StatusCode: status, Header: http.Header{}, Request: r,
						Body: io.NopCloser(strings.NewReader(fmt.Sprintf(body, token)))}, nil
				})
			})
			results := send(t, u, to(t, "To: zoe@example.net\r\n", "zoe@example.net"))
			told := fmt.Sprintf("%+v %v %+v", results, results[0].Err, u.States())
			for i := 0; i+14 <= len(token); i++ {
				if strings.Contains(told, token[i:i+14]) {
					t.Fatalf("%s, %d: %q is told: %s", name, status, token[i:i+14], told)
				}
			}
		}
	}
}
