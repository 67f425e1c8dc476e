package auth

import (
	"context"

	"postern/mail"
)

// externalExchange is EXTERNAL (RFC 4422 appendix A): the response is the login, or empty where the certificate says
// it.
type externalExchange struct {
	outcome
	check    func(ctx context.Context, login string) mail.Reply
	prompted bool
	ended    bool
}

func (x *externalExchange) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	switch {
	case x.ended:
		return x.refuse(replyEnded, errEnded)
	case response == nil && !x.prompted:
		x.prompted = true
		return []byte{}, mail.Reply{}
	}
	x.ended = true
	name := string(response)
	switch {
	case len(name) > MaxLength:
		return x.refuse(replyRefused, errTooLong)
	case !printable(name):
		return x.refuse(replyControls, errControls)
	}
	x.name = name
	return nil, x.check(ctx, name)
}
