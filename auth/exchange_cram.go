package auth

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"postern/mail"
)

// maxCramResponse bounds an answer, in octets: a login, a blank and a digest.
const maxCramResponse = MaxLength + 1 + 2*md5.Size

var (
	errCram      = errors.New("the response is no answer of CRAM-MD5 (RFC 2195): login, blank, 32 hexadecimal digits")
	errCramFirst = errors.New("the client answers before it was asked (RFC 4954 §4)")
	replyCram    = mail.R(501, "5.5.2", "the login is malformed: that is no answer of CRAM-MD5 (RFC 2195)")
)

// cramExchange is CRAM-MD5 (RFC 2195). go-sasl does not have it. A challenge is asked once, so that no answer can be
// played back.
type cramExchange struct {
	outcome
	check     func(ctx context.Context, login string, answer CramAnswer) mail.Reply
	hostname  string
	challenge []byte
	ended     bool
}

func (x *cramExchange) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	switch {
	case x.ended:
		return x.refuse(replyEnded, errEnded)
	case x.challenge == nil && response == nil:
		x.challenge = fmt.Appendf(nil, "<%s.%d@%s>", rand.Text(), time.Now().Unix(), x.hostname)
		return x.challenge, mail.Reply{}
	}
	x.ended = true
	if x.challenge == nil {
		return x.refuse(replyCram, errCramFirst)
	}
	name, answer, ok := parseCram(response)
	if !ok {
		return x.refuse(replyCram, errCram)
	}
	x.name, answer.Challenge = name, x.challenge
	if reply, why := checkShape(name, "a digest"); why != nil {
		return x.refuse(reply, why)
	}
	return nil, x.check(ctx, name, answer)
}

// parseCram reads "login digest". The login may have blanks in it.
func parseCram(response []byte) (name string, answer CramAnswer, ok bool) {
	at := bytes.LastIndexByte(response, ' ')
	if at < 0 || len(response) > maxCramResponse || len(response)-at-1 != 2*md5.Size {
		return "", answer, false
	}
	_, err := hex.Decode(answer.Digest[:], response[at+1:])
	return string(response[:at]), answer, err == nil
}
