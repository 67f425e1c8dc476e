package submission

import (
	"context"
	"errors"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/wire"
)

// The replies of the relay itself. Whatever policy, limits and upstreams have to say comes with words
// of its own.
var (
	replySender    = mail.R(250, "2.1.0", "sender ok")
	replyRecipient = mail.R(250, "2.1.5", "recipient ok")
	replyLocal     = mail.R(451, "4.3.0", "local trouble, the message was not taken; try again later")
	replyNotNow    = mail.R(451, "4.3.0",
		"the database of this server is away, and no upstream took the message at once; try again later")
	replyFull     = mail.R(452, "4.3.1", "no room to keep the message safely; try again later")
	replyStopping = mail.R(421, "4.3.2", "the service is going down; try again later")
	replyCut      = mail.R(421, "4.4.2", "the transfer was cut and nothing was taken; send the message again")
	replyLoop     = mail.R(554, "5.4.6", "the message has passed through more than %d servers: "+
		"this is a mail loop, look for a rule that forwards it back", maxHops)
	replyNoAuthor = mail.R(550, "5.6.0",
		"the message names no author, and its reverse-path cannot stand in for one; give it a From field")
	replyAccount     = mail.R(421, "4.7.0", "the account was changed, locked or removed; log in again")
	replyListener    = mail.R(421, "4.7.0", "the configuration of this server has changed; connect again")
	replyNoAccount   = mail.R(421, "4.7.0", "the account of this listener cannot be used; the operator's log says why")
	replyNoMechanism = mail.R(504, "5.5.4",
		`this authentication method is not offered here; choose "normal password"`)
)

// replyFor is the only place where an error becomes a reply. What carries no reply of its own is our
// trouble: temporary, neutral, and never told outward.
func replyFor(err error) mail.Reply {
	if reply, ok := mail.ReplyFor(err); ok {
		return reply
	}
	switch {
	case errors.Is(err, queue.ErrFull), errno.Full(err):
		return replyFull
	case errors.Is(err, wire.ErrCut):
		return replyCut
	case errors.Is(err, context.Canceled):
		return replyStopping
	}
	return replyLocal
}
