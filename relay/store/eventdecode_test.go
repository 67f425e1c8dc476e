package store

import (
	"encoding/json"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

// FuzzDecodeEvent: the short way reads as encoding/json does, whatever is in a row.
func FuzzDecodeEvent(f *testing.F) {
	row, err := newEventRow(trace.Event{
		Time: eventTime, Kind: trace.Deferred, Listener: "submission", Client: "192.0.2.1",
		From: "a&b@example.com", Author: "ä@example.com", To: "b@example.net", MessageID: "<1@example.com>", Size: -12,
		Upstream: "office", Identity: "\x00\x7f\u2028", Class: "deferral", Stage: "rcpt", Rule: `"\/`, Attempt: 3,
		Reply: mail.R(451, "4.7.1", "line 1\nline\t2\r\b\f"), Detail: "later", Took: time.Second})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row.data)
	for _, s := range []string{
		`{}`, `{"size":1}`, `{"size":01}`, `{"size":-0}`, `{"size":1234567890123456789}`, `{"size":1.5}`,
		`{"size":"1"}`, `{,}`,
		`{"to":"\u003ca\u003e"}`, `{"to":"\ud83d\ude00"}`, `{"to":"\u0080"}`, `{"to":"a","to":"b"}`, `{"to":null}`,
		`{"reply":{"code":250,"enhanced":"2.0.0","text":"ok"}}`, `{"reply":{}}`, `{"reply":{"x":1}}`, `{"to":"a",}`,
		`{"TO":"a"}`, `{"to":"a"} `, `{"to":"\q"}`, `{"reply":null,"detail":"x"}`, ``,
		"{\"to\":\"\xff\"}", `{"attempt":1}x`,
		`{"took_ns":5,"class":"c","age":4}`, `{"to":"\u00e4"}`, `{"to":"\u001F"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want trace.Event
		gotErr, wantErr := decodeEvent(string(data), &got), json.Unmarshal(data, &want)
		if (gotErr == nil) != (wantErr == nil) || wantErr == nil && got != want {
			t.Errorf("%q\ngot  %+v, %v\nwant %+v, %v", data, got, gotErr, want, wantErr)
		}
	})
}
