package outbound

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// unreadable is the content of a message on a damaged disk.
type unreadable struct{}

func (unreadable) Size() int64                  { return 100 }
func (unreadable) Bytes() []byte                { return nil }
func (unreadable) Open() (io.ReadCloser, error) { return nil, errors.New("input/output error") }

// A report about a message that cannot be read waits while the message has time, and then goes without it.
func TestReportOfAMessageThatCannotBeRead(t *testing.T) {
	d, log := dispatcherFor(t, provider(t, "provider", &brittle{}))
	now := time.Now()
	from, err := mail.ParseAddress("anna@example.com")
	if err != nil {
		t.Fatal(err)
	}
	to, err := mail.ParseAddress("bob@example.net")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]mail.Content{"not there": nil, "unreadable": unreadable{}} {
		n := queue.Notice{Kind: queue.Failure, Time: now, Content: content,
			Message: &queue.Message{ID: "gone", Envelope: mail.Envelope{From: from}, Received: now.Add(-time.Hour),
				Expires:    now.Add(time.Second),
				Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: to}}}},
			About: []queue.About{{Reply: mail.R(550, "5.1.1", "no such user")}}}
		if _, err := d.Report(n); err == nil {
			t.Errorf("%s: a report is made at once", name)
		}
		n.Time = n.Message.Expires
		made, err := d.Report(n)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text := string(made.Content.Bytes())
		if !strings.Contains(text, "bob@example.net") || !strings.Contains(text, "no such user") ||
			strings.Contains(text, "rfc822-headers") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if !strings.Contains(log.String(), "a report is made without the message") {
		t.Error("the log does not say it")
	}
}

// What a provider says about our login is not mailed to users.
func TestReportsSayNothingOfOurLogin(t *testing.T) {
	d, _ := dispatcherFor(t, provider(t, "provider", &brittle{}))
	to := mail.Address{Local: "bob", Domain: "example.net"}
	n := queue.Notice{Kind: queue.Delay, Time: time.Now(), Content: mail.BytesContent([]byte("Subject: x\r\n\r\n")),
		Message: &queue.Message{ID: "m", Envelope: mail.Envelope{From: mail.Address{Local: "anna",
			Domain: "example.com"}},
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: to}}}},
		About: []queue.About{{Stage: mail.StageAuth, Host: "smtp.example.org",
			Reply: mail.R(535, "5.7.8", "relay@office.example is disabled, call 555-1234")}}}
	made, err := d.Report(n)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(made.Content.Bytes())), " ")
	if strings.Contains(text, "office.example") || strings.Contains(text, "555") ||
		strings.Contains(text, "Remote-MTA") ||
		!strings.Contains(text, "x-postern; 451 4.7.0 the provider that this relay sends through does not let it in") {
		t.Errorf("%s", text)
	}
}
