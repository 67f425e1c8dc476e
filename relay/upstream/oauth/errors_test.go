package oauth

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"postern/mail"
)

func body(t testing.TB, code, description string) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"error": code, "error_description": description +
		"\r\nTrace ID: 0b7a5d5c\r\nTimestamp: 2026-09-01 08:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every line of the table is met by what it was written for, and not shadowed by one before it.
func TestKnownCodes(t *testing.T) {
	for _, k := range knownCodes() {
		t.Run(k.Code+" "+k.Text, func(t *testing.T) {
			if k.Example == "" || k.Error == "" || k.Cause == "" {
				t.Fatal("a line without example or cause")
			}
			if k.class() == mail.AccountFault == (k.Fix == "") {
				t.Errorf("class %v with fix %q", k.class(), k.Fix)
			}
			e := classify(parseAnswer(400, nil, body(t, k.Error, k.Example), time.Now()))
			if e.Cause != k.Cause || e.Fix != k.Fix || e.Class != k.class() {
				t.Errorf("classified %v %q", e.Class, e.Cause)
			}
			if strings.HasPrefix(k.Code, "AADSTS") && !strings.HasPrefix(k.Example, k.Code+":") {
				t.Errorf("the example is of another number")
			}
		})
	}
}

func TestFixesNameWhatIsConfigured(t *testing.T) {
	for _, k := range knownCodes() {
		rest := strings.NewReplacer("{name}", "", "{client}", "", "{tenant}", "").Replace(k.Fix)
		if strings.ContainsAny(rest, "{}$") {
			t.Errorf("%s: %q has a placeholder that nobody fills", k.Code, k.Fix)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		body   string
		class  mail.Class
		code   string
	}{
		{"number nobody knows, member known", 400, `{"error":"invalid_grant","error_description":"AADSTS999999: ` +
			`Something new."}`, mail.AccountFault, "AADSTS999999"},
		{"number nobody knows, member unknown", 400, `{"error":"novel_error","error_description":"AADSTS999998: ` +
			`Something new."}`, mail.AccountFault, "AADSTS999998"},
		{"number only in error_codes", 400, `{"error":"invalid_grant","error_description":"nicht ` +
			`gefunden","error_codes":[700082]}`, mail.AccountFault, "AADSTS700082"},
		{"text before error_codes", 400, `{"error":"invalid_grant","error_description":"AADSTS53003: ` +
			`Blocked","error_codes":[700082]}`, mail.AccountFault, "AADSTS53003"},
		{"form", 400, `error=invalid_grant&error_description=gone`, mail.AccountFault, "invalid_grant"},
		{"google's object", 429, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x"}}`,
			mail.BackPressure, "HTTP 429"},
		{"google's subtype", 400, `{"error":"invalid_grant","error_description":"reauth related error ` +
			`(invalid_rapt)","error_subtype":"invalid_rapt"}`, mail.AccountFault, "invalid_grant"},
		{"server error beats an unknown member", 502, `{"error":"whatever"}`, mail.BackPressure, "HTTP 502"},
		{"not found", 404, `<html>`, mail.AccountFault, "HTTP 404"},
		{"unknown and silent", 400, ``, mail.BackPressure, "HTTP 400"},
		{"not a number", 400, `{"error":"invalid_grant","error_description":"AADSTS: hm"}`, mail.AccountFault,
			"invalid_grant"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := classify(parseAnswer(tc.status, nil, []byte(tc.body), time.Now()))
			if e.Class != tc.class || e.Code != tc.code || e.Cause == "" {
				t.Errorf("%v %q %q", e.Class, e.Code, e.Cause)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 9, 1, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "99999999999999999999": 0, "4000": maxRetryAfter,
		"Tue, 01 Sep 2026 08:00:30 GMT": 30 * time.Second, "Tue, 01 Sep 2020 08:00:30 GMT": 0, "soon": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func FuzzErrorAnswer(f *testing.F) {
	for i, k := range knownCodes() {
		if i%7 == 0 {
			f.Add(400, "", body(f, k.Error, k.Example))
		}
	}
	f.Add(503, "120", []byte("<html>"))
	f.Add(400, "Tue, 01 Sep 2026 08:00:30 GMT", []byte("error=invalid_grant&error_description=%1b%5b2J"))
	f.Add(400, "", []byte(`{"error":{"status":"\u001b"},"error_description":"AADSTS99999999999999999999",`+
		`"error_codes":[-1,0,1,2,3,4,5,6,7,8,9]}`))
	f.Fuzz(func(t *testing.T, status int, retry string, raw []byte) {
		a := parseAnswer(status, http.Header{"Retry-After": {retry}}, raw, time.Unix(1_800_000_000, 0))
		e := classify(a)
		if e.Class != mail.AccountFault && e.Class != mail.BackPressure || e.Cause == "" || e.Code == "" {
			t.Fatalf("classified %v %q %q", e.Class, e.Code, e.Cause)
		}
		if e.Class == mail.AccountFault && e.Fix == "" {
			t.Fatalf("%q names no fix", e.Cause)
		}
		if status >= 500 && len(a.numbers) == 0 && e.Class == mail.AccountFault && a.code == "" {
			t.Fatalf("a server's own trouble became a person's: %q", e.Cause)
		}
		for _, text := range []string{e.Code, e.Detail, e.Cause, e.Fix, e.Error()} {
			if mail.Printable(text) != text || !utf8.ValidString(text) || len(text) > 1000 {
				t.Fatalf("%q goes to a terminal", text)
			}
		}
		if e.retryAfter < 0 || e.retryAfter > maxRetryAfter {
			t.Fatalf("wait %v", e.retryAfter)
		}
	})
}
