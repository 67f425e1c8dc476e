package alert

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDocument(t *testing.T) {
	since := time.Date(2026, 11, 22, 9, 30, 15, 5, time.FixedZone("CET", 3600))
	e := &entry{Since: since, Condition: Condition{
		Event: UpstreamPaused, Subject: "upstream office as relay@example.com", Summary: `It said "535 5.7.8 <no>".`,
		Over:    "It works again.",
		Details: map[string]string{"upstream": "office", "reply": "535 5.7.8\x00no"},
	}}
	d := documentOf("relay.example.com", since.Add(time.Minute), e, false)
	var got bytes.Buffer
	if err := json.Indent(&got, d.encode(), "", "  "); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "event": "upstream-paused",
  "time": "2026-11-22T08:31:15Z",
  "since": "2026-11-22T08:30:15Z",
  "host": "relay.example.com",
  "subject": "upstream office as relay@example.com",
  "resolved": false,
  "repeated": false,
  "summary": "It said \"535 5.7.8 \u003cno\u003e\".",
  "details": {
    "reply": "535 5.7.8?no",
    "upstream": "office"
  },
  "text": "relay.example.com: upstream-paused: upstream office as relay@example.com: It said \"535 5.7.8 ‹no›\"."
}`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	e.Told = since
	d = documentOf("relay.example.com", since, e, true)
	if !d.Resolved || d.Repeated || d.Summary != "It works again." ||
		!strings.Contains(d.Text, ": RESOLVED upstream-paused: ") {
		t.Errorf("%+v", d)
	}
	e.Details = nil
	if !strings.Contains(string(documentOf("h", since, e, false).encode()), `"details":{}`) {
		t.Error("details is not always an object")
	}
}

func TestDefuse(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                       "plain",
		"login anna@example.com":      "login anna@example.com",
		"<!channel> <@U1>":            "‹!channel› ‹(at)U1›",
		"@all @@here (@channel)":      "(at)all (at)(at)here ((at)channel)",
		"[reset](https://evil.test/)": "[reset] (https://evil.test/)",
		"a.@all":                      "a.(at)all",
	} {
		if got := defuse(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzDocument(f *testing.F) {
	f.Add("login <!channel>", "535 \x1b[2J no", "[a](b)")
	f.Fuzz(func(t *testing.T, subject, summary, detail string) {
		e := &entry{Condition: Condition{Event: LoginLocked, Subject: subject, Summary: summary,
			Details: map[string]string{"reply": detail}}}
		b := documentOf("relay.example.com", time.Now(), e, false).encode()
		var d Document
		if err := json.Unmarshal(b, &d); err != nil || !utf8.Valid(b) {
			t.Fatalf("%v: %q", err, b)
		}
		if len(d.Text) > 3*(maxSubject+maxSummary)+200 || strings.ContainsAny(d.Text, "<>\n\r\x00") ||
			strings.Contains(d.Text, "](") {
			t.Fatalf("text: %q", d.Text)
		}
	})
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"version":1,"hooks":{"x":[{"event":"test","subject":"a","told":"2026-11-22T08:31:15Z"}]}}`))
	f.Add([]byte(`{"version":1,"hooks":{"x":[null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseState(data)
		if err != nil {
			return
		}
		for _, entries := range b.Hooks {
			for _, e := range entries {
				documentOf("h", time.Now(), e, true)
			}
		}
	})
}
