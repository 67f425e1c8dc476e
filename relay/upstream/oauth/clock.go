package oauth

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// ServerTime is the time that the login service says it is (RFC 9110 §6.6.1), to the second. The question has no secret
// in it, and whatever the answer is, its date counts.
func (s *Source) ServerTime(ctx context.Context) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.p.endpoint.TokenURL, nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := bound{s.transport, ctx}.RoundTrip(req)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask %s for the time: %w", req.URL.Host, err)
	}
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("%s does not say what time it is", req.URL.Host)
	}
	return at, nil
}
