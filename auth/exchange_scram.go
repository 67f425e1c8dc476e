package auth

import (
	"context"
	"errors"
	"strings"

	"github.com/xdg-go/scram"

	"postern/mail"
)

// Binding is a channel binding of a connection (RFC 5056): its type as RFC 5929 and 9266 name it, and its data.
type Binding struct {
	Type string
	Data []byte
}

// maxScramMessage bounds a client's message, in octets: a login with every octet escaped, a nonce, a binding.
const maxScramMessage = 2048

var (
	replyScram     = mail.R(501, "5.5.2", "the login is malformed: that is no message of SCRAM (RFC 5802)")
	replyDowngrade = mail.R(535, "5.7.8", "the login is refused: somebody between this program and the server hides "+
		"what the server offers")
	replyBinding = mail.R(535, "5.7.8", "the login is refused: the connection of the program and that of the server "+
		"are not the same one, or the program binds to it in a way that the server does not have")
)

var (
	errScram     = errors.New("the response is no message of SCRAM (RFC 5802)")
	errDowngrade = errors.New("the client could bind to the channel and did not see that SCRAM-SHA-256-PLUS is " +
		"offered: somebody in between changes what is offered, or the client is wrong")
	errBinding = errors.New("the channel binding does not fit: somebody stands between client and server, or the " +
		"client binds in another way")
	errScramNonce = errors.New("the client answers with a nonce that is not this exchange's: was it played back?")
)

// scramExchange is SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677). The library has the messages and the
// proofs; ours are the bounds, the login and which binding is expected.
type scramExchange struct {
	outcome
	checks Checks
	plus   bool // the client chose -PLUS
	step   int
	talk   *scram.ServerConversation
	trial  *ScramTrial
	id     Identity
}

func (x *scramExchange) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	if x.step == 0 && response == nil {
		x.step = 1
		return []byte{}, mail.Reply{}
	}
	if x.step == 0 {
		x.step = 1
	}
	x.step++
	switch x.step {
	case 2:
		return x.begin(ctx, response)
	case 3:
		return x.prove(ctx, response)
	case 4:
		if len(response) != 0 {
			return x.refuse(replyScram, errScram)
		}
		return nil, x.checks.Done(x.id)
	}
	return x.refuse(replyEnded, errEnded)
}

// end refuses, and lets nothing follow.
func (x *scramExchange) end(r mail.Reply, why error) ([]byte, mail.Reply) {
	x.step = 4
	return x.refuse(r, why)
}

// begin answers client-first-message.
func (x *scramExchange) begin(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	first := string(response)
	if len(first) > maxScramMessage || !printable(first) {
		return x.end(replyScram, errScram)
	}
	flag, _, _ := strings.Cut(first, ",")
	bindings := x.checks.Bindings
	var binding scram.ChannelBinding
	switch wanted, binds := strings.CutPrefix(flag, "p="); {
	case binds != x.plus: // RFC 5802 §6
		return x.end(replyBinding, errBinding)
	case flag == "y" && len(bindings) > 0:
		return x.end(replyDowngrade, errDowngrade)
	case binds:
		for _, b := range bindings {
			if b.Type == wanted {
				binding = scram.ChannelBinding{Type: scram.ChannelBindingType(b.Type), Data: b.Data}
			}
		}
		if !binding.IsSupported() {
			return x.end(replyBinding, errBinding)
		}
	}
	var refused mail.Reply
	server, _ := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) { // never fails
		x.name = name
		if refused = x.meet(ctx, name); !refused.IsZero() {
			return scram.StoredCredentials{}, errScram
		}
		return x.trial.keys.credentials(), nil
	})
	x.talk = server.NewConversationWithChannelBinding(binding)
	challenge, err := x.talk.Step(first)
	switch {
	case !refused.IsZero():
		x.step = 4
		return nil, refused
	case err != nil:
		return x.end(replyScram, errScram)
	}
	if z := x.talk.AuthzID(); z != "" && mail.LowerASCII(z) != mail.LowerASCII(x.name) {
		return x.end(replyRefused, errAuthzid)
	}
	if nonce, _, _ := strings.Cut(first[strings.LastIndex(first, ",r=")+1:], ","); nonce == "r=" {
		return x.end(replyScram, errScram)
	}
	return []byte(challenge), mail.Reply{}
}

// meet begins the trial of a login.
func (x *scramExchange) meet(ctx context.Context, name string) (refused mail.Reply) {
	if name == "" {
		x.why = errNoName
		return replyNoName
	}
	x.trial, refused = x.checks.Scram(ctx, name)
	return refused
}

// prove answers client-final-message.
func (x *scramExchange) prove(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	final := string(response)
	if len(final) > maxScramMessage || !printable(final) {
		return x.end(replyScram, errScram)
	}
	last, err := x.talk.Step(final)
	switch {
	case err == nil, last == scram.ErrInvalidProof:
	case last == scram.ErrChannelBindingsDontMatch:
		return x.end(replyBinding, errBinding)
	case last == scram.ErrOtherError:
		return x.end(replyRefused, errScramNonce)
	default:
		return x.end(replyScram, errScram)
	}
	id, reply := x.checks.ScramEnd(ctx, x.trial, err == nil && x.talk.Valid(), final)
	if !reply.IsZero() {
		x.step = 4
		return nil, reply
	}
	x.id = id
	return []byte(last), mail.Reply{}
}
