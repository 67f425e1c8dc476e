package capture

import (
	"errors"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// loginServer is the LOGIN mechanism (draft-murchison-sasl-login), which go-sasl has for clients only:
// two prompts, and the user name may come as initial response.
type loginServer struct {
	authenticate func(login, password string) error
	login        string
	state        loginState
}

type loginState int

const (
	loginStart loginState = iota
	loginWantsUser
	loginWantsPassword
	loginDone
)

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch l.state {
	case loginStart:
		l.state = loginWantsUser
		if response == nil {
			return []byte("Username:"), false, nil
		}
		fallthrough
	case loginWantsUser:
		l.login = string(response)
		l.state = loginWantsPassword
		return []byte("Password:"), false, nil
	case loginWantsPassword:
		l.state = loginDone
		return nil, true, l.authenticate(l.login, string(response))
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}

// strictServer turns the plain errors of a mechanism, which go-smtp would answer with 454 and their
// text, into 501.
type strictServer struct{ sasl.Server }

// Next implements sasl.Server.
func (s strictServer) Next(response []byte) ([]byte, bool, error) {
	challenge, done, err := s.Server.Next(response)
	var known *smtp.SMTPError
	if err != nil && !errors.As(err, &known) {
		err = errAuthSyntax
	}
	return challenge, done, err
}
