package alert

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"postern/mail"
)

// Document is what a hook is sent. Its keys stay; further ones may come.
type Document struct {
	Event    Event             `json:"event"`
	Time     time.Time         `json:"time"`    // of this alert, UTC
	Since    time.Time         `json:"since"`   // the beginning of the condition, UTC
	Host     string            `json:"host"`    // the relay
	Subject  string            `json:"subject"` // with event the name of the condition
	Resolved bool              `json:"resolved"`
	Repeated bool              `json:"repeated"` // told before: it lasts
	Summary  string            `json:"summary"`
	Details  map[string]string `json:"details"`
	Text     string            `json:"text"` // all of it in one, for hooks of chat programs
}

// Bounds of what outsiders have a part in, in octets.
const (
	maxSubject = 400
	maxSummary = 2000
	maxDetail  = 1000
)

func documentOf(host string, now time.Time, e *entry, resolved bool) Document {
	d := Document{
		Event: e.Event, Time: stamp(now), Since: stamp(e.Since), Host: host, Subject: clean(e.Subject, maxSubject),
		Resolved: resolved, Repeated: !resolved && !e.Told.IsZero(), Summary: clean(e.Summary, maxSummary), Details: make(map[string]string),
	}
	if resolved {
		d.Summary = clean(e.Over, maxSummary)
		if d.Summary == "" {
			d.Summary = "It is over."
		}
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

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func clean(s string, most int) string { return mail.Printable(mail.Cut(s, most)) }

func cleanLines(s string, most int) string {
	lines := strings.Split(mail.Cut(s, most), "\n")
	for i := range lines {
		lines[i] = mail.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// textOf makes the sentence that chat programs show.
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

// defuse keeps what outsiders have a part in, logins that were guessed and replies of servers, from being markup: Slack reads
// <…>, Mattermost and Teams read [text](address), and they ring for an @all, which has nothing before its @ as an address has.
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
		panic("alert: " + err.Error()) // texts and times: nothing in it can fail
	}
	return b
}
