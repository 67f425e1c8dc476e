package alert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"postern/mail"
)

// Document is the JSON sent to a hook. Keys may be added, never removed or renamed.
type Document struct {
	Event    Event             `json:"event"`
	Time     time.Time         `json:"time"`    // of this alert, UTC
	Since    time.Time         `json:"since"`   // when the condition began, UTC
	Host     string            `json:"host"`    // the relay
	Subject  string            `json:"subject"` // identifies the condition, together with event
	Resolved bool              `json:"resolved"`
	Repeated bool              `json:"repeated"` // the condition still holds
	Summary  string            `json:"summary"`
	Details  map[string]string `json:"details"`
	Text     string            `json:"text"` // everything in one sentence, for chat programs
}

// Bounds of texts that outsiders can influence, in octets.
const (
	maxSubject = 400
	maxSummary = 2000
	maxDetail  = 1000
)

func documentOf(host string, now time.Time, e *entry, resolved bool) Document {
	d := Document{
		Event: e.Event, Time: inUTC(now), Since: inUTC(e.Since), Host: host,
		Subject: clean(e.Subject, maxSubject), Summary: clean(e.Summary, maxSummary), Details: make(map[string]string),
		Resolved: resolved, Repeated: !resolved && !e.Told.IsZero(),
	}
	if resolved {
		d.Summary = clean(e.Over, maxSummary)
		d.Summary = cmp.Or(d.Summary, "It is over.")
	}
	for k, v := range e.Details {
		d.Details[k] = clean(v, maxDetail)
	}
	if e.Block != "" && !resolved {
		block := cleanLines(e.Block, maxSummary)
		d.Summary += "\n" + block
		d.Details["rule"] = block
	}
	d.Text = textOf(&d)
	return d
}

func inUTC(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func clean(s string, most int) string { return mail.Printable(mail.Cut(s, most)) }

func cleanLines(s string, most int) string {
	lines := strings.Split(mail.Cut(s, most), "\n")
	for i := range lines {
		lines[i] = mail.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// textOf is the sentence that chat programs show.
func textOf(d *Document) string {
	word := ""
	switch {
	case d.Resolved:
		word = "RESOLVED "
	case d.Repeated:
		word = "STILL "
	}
	text := fmt.Sprintf("%s: %s%s: %s: %s", d.Host, word, d.Event, d.Subject, d.Summary)
	if d.Repeated {
		text += " Since " + d.Since.Format("2006-01-02 15:04 MST") + "."
	}
	return defuse(text)
}

// defuse disarms chat markup, since outsiders choose guessed logins and server replies. Slack reads <…>, Mattermost and
// Teams read [text](address), and all notify everybody for @all: an @ without a letter or digit before it.
func defuse(s string) string {
	var b strings.Builder
	before := ' '
	for _, r := range strings.NewReplacer("<", "‹", ">", "›", "](", "] (").Replace(s) {
		if r == '@' && !unicode.IsLetter(before) && !unicode.IsDigit(before) {
			b.WriteString("(at)")
		} else {
			b.WriteRune(r)
		}
		before = r
	}
	return b.String()
}

func (d Document) encode() []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic("alert: " + err.Error()) // strings and times always encode
	}
	return b
}
