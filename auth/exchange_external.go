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
	if response == nil && !x.prompted && !x.ended {
		x.prompted = true
		return []byte{}, mail.Reply{}
	}
	name := string(response)
	ended := x.ended
	x.ended = true
	switch {
	case ended:
		return x.refuse(replyEnded, errEnded)
	case len(name) > MaxLength:
		return x.refuse(replyRefused, errTooLong)
	case !printable(name):
		return x.refuse(replyControls, errControls)
	}
	x.name = name
	return nil, x.check(ctx, name)
}
