// Package large rebuilds a message that is too large for one Microsoft Graph request: its header and text become a
// draft, its files are added one by one, and graph sends the draft. The rebuilt message says the same but has other
// octets; docs/decisions/0018-graph-large-mail.md says why, and how to remove this package. It does not depend on
// package graph, which makes the requests (see Client) and uses it only in graph/large.go.
//
// Failure semantics:
//   - A message that rebuilding would falsify is refused before Graph is asked: a *Refusal.
//   - Until the draft is sent, nobody has the message. An error before that is certain, and graph deletes the draft.
//   - Memory is one file's request or one chunk, whatever the message's size: the content is read three times in place
//     (structure, text, files). Each message may still need a dozen megabytes, so only a few are processed at a time.
package large

import (
	"context"
	"io"

	"postern/mail"
)

// maxAtOnce bounds how many messages a Rebuilder works on at a time.
const maxAtOnce = 8

// Message is what is too large.
type Message struct {
	Header mail.Header
	Size   int64                         // of the body, in octets
	Open   func() (io.ReadCloser, error) // the body, the same each time

	// Addresses reads an address list: what every reader finds in it, and whether there is nothing else in it that may
	// be an address.
	Addresses func(list string) (sure []mail.Address, clear bool)
	// Key is equal for addresses that are equal to Exchange.
	Key func(mail.Address) string
}

// Odd is an answer of Graph's that fits nothing. The message is tried again.
type Odd string

// Error implements error.
func (o Odd) Error() string { return string(o) }

// Rebuilder rebuilds messages, a few at a time.
type Rebuilder struct{ room chan struct{} }

// New makes a Rebuilder.
func New() *Rebuilder { return &Rebuilder{make(chan struct{}, maxAtOnce)} }

// Rebuild takes a message apart when there is room for it, which Close gives back. It returns a *Refusal where the
// message cannot be rebuilt, and ctx's error when that ends first; any other error is that the content cannot be read.
func (r *Rebuilder) Rebuild(ctx context.Context, m *Message) (*Rebuilt, error) {
	select {
	case r.room <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b, err := m.rebuild()
	b.room = r.room
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close lets another message in.
func (b *Rebuilt) Close() { <-b.room }
