package upstream

import (
	"time"

	"postern/mail"
)

// Step is one phase of a test.
type Step struct {
	Name  string        `json:"name"` // resolve, token, connect, tls, greeting, ehlo, starttls, auth, mail
	OK    bool          `json:"ok"`
	Took  time.Duration `json:"took_ns"`
	Seen  string        `json:"seen,omitempty"`  // what was found, for people; lines separated by \n
	Cause string        `json:"cause,omitempty"` // why it failed and what to look at, in plain words
	Reply mail.Reply    `json:"reply,omitzero"`  // the upstream's, or ours that describes the trouble

	// whose mail the step is for; empty: everybody's, "<>": the null reverse-path
	Sender   string `json:"sender,omitempty"`
	Identity string `json:"identity,omitempty"` // who was logged in as, or tried to
	Ours     bool   `json:"-"`                  // Reply is not the upstream's
}

// Trial is what a test is to try, and who watches it.
type Trial struct {
	Senders      []mail.Address
	AsThemselves bool          // each sender is logged in as itself
	Limit        time.Duration // of each step; 0: as in a delivery
	Total        time.Duration // of each way to a login; 0: none
	// Begin is called with the name of each step before it, Done behind it. May be nil.
	Begin func(name string)
	Done  func(Step)
}

// Begins tells whoever watches.
func (t *Trial) Begins(name string) {
	if t.Begin != nil {
		t.Begin(name)
	}
}

// Ends tells whoever watches.
func (t *Trial) Ends(s Step) {
	if t.Done != nil {
		t.Done(s)
	}
}
