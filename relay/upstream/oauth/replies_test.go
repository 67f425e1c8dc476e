package oauth

import (
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/mail"
)

// saying answers every request with one answer.
type saying struct {
	status int
	retry  string
	body   string
}

func (s saying) RoundTrip(r *http.Request) (*http.Response, error) {
	h := http.Header{"Content-Type": {"application/json"}}
	if s.retry != "" {
		h.Set("Retry-After", s.retry)
	}
	return &http.Response{StatusCode: s.status, Header: h, Body: io.NopCloser(strings.NewReader(s.body)), Request: r},
		nil
}

// told is what a Source makes of one answer.
func told(t *testing.T, flow Flow, s saying) *Error {
	t.Helper()
	o := Options{
		Upstream: "office", Provider: Microsoft, Flow: flow, Tenant: "contoso.onmicrosoft.com", ClientID: client,
		ClientSecret: NewSecret(secret), Transport: s, Jitter: func() float64 { return 0 }, Grants: NewMemoryGrants(),
		Sealer: testSealer(),
	}
	source := newSource(t, o)
	if flow.Delegated() {
		putGrant(t, source, "refresh")
	}
	_, err := source.Token(t.Context(), mailbox)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%+v gives %v", s, err)
	}
	return e
}

var seen = regexp.MustCompile(`^(\d{3}) (?:\[Retry-After: (\d+)\] )?(.*)$`)

// Answers seen in public logs have the class that people gave them.
func TestRepliesSeenInTheField(t *testing.T) {
	file, err := os.ReadFile("../testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	words := map[mail.Class]string{mail.AccountFault: "account", mail.BackPressure: "pressure"}
	rows := 0
	for row := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
		if f[0] != "oauth" {
			continue
		}
		rows++
		m := seen.FindStringSubmatch(f[4])
		if m == nil {
			t.Fatalf("row %q", row)
		}
		status, _ := strconv.Atoi(m[1])
		for _, flow := range []Flow{ClientCredentials, DeviceCode} {
			e := told(t, flow, saying{status, m[2], m[3]})
			if !slices.Contains(append(strings.Split(f[3], ","), f[2]), words[e.Class]) {
				t.Errorf("%s is %s (%s), not %s", f[4], words[e.Class], e.Cause, f[2])
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d rows", rows)
	}
}

// Kinds of answers, wherever they are wrapped.
func TestKindsOfAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		class  mail.Class
		says   string
	}{
		{400, `{"error":"internal_failure"}`, mail.BackPressure, "passing"},
		{400, `{"error":"backend_error"}`, mail.BackPressure, "passing"},
		{400, `{"error":"invalid_request","error_description":"AADSTS90999: The request has timed out."}`,
			mail.BackPressure, "passing"},
		{403, `{"error":{"code":403,"message":"x","errors":[{"reason":"userRateLimitExceeded"}]}}`, mail.BackPressure,
			"asked too often"},
		{403, `[{"error":{"code":403,"message":"x","errors":[{"reason":"quotaExceeded"}]}}]`, mail.BackPressure,
			"asked too often"},
		{401, "\ufeff" + `{"error":"invalid_client","error_description":"AADSTS7000222: ` +
			`expired","error_codes":[7000222]}`, mail.AccountFault, "expired"},
		{407, `<html>Proxy Authentication Required</html>`, mail.BackPressure, "a web page"},
		{403, `<html><title>Blocked</title>`, mail.BackPressure, "login.microsoftonline.com"},
		{503, `<html>`, mail.BackPressure, "HTTP 503"},
		{200, `{"error":"invalid_grant","error_description":"AADSTS70008: old"}`, mail.AccountFault, "expired"},
	} {
		if e := told(t, DeviceCode, saying{c.status, "", c.body}); e.Class != c.class ||
			!strings.Contains(e.Error(), c.says) {
			t.Errorf("%d %s: %s %s", c.status, c.body, e.Class, e.Error())
		}
	}
}

// What to do is for the flow in use: nobody logs in for an application, and no application policy holds for people.
func TestAdviceForTheFlow(t *testing.T) {
	for _, k := range knownCodes() {
		if k.class() != mail.AccountFault {
			continue
		}
		s := saying{400, "", string(body(t, k.Error, k.Example))}
		if e := told(t, ClientCredentials, s); strings.Contains(e.Fix, "postern upstream login") || e.Fix == "" {
			t.Errorf("%s for an application: %s", k.Code, e.Fix)
		}
	}
	s := saying{400, "", `{"error":"interaction_required","error_description":"AADSTS59999999: ` +
		`New.","claims":"{\"access_token\":{}}"}`}
	if e := told(t, DeviceCode, s); !strings.Contains(e.Cause, "claims challenge") ||
		!strings.Contains(e.Fix, "postern upstream login office") {
		t.Errorf("claims: %s; %s", e.Cause, e.Fix)
	}
	if e := told(t, ClientCredentials, s); !strings.Contains(e.Fix, "workload identities") {
		t.Errorf("claims of an application: %s", e.Fix)
	}
}
