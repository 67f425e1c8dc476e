package capture

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

const maxAuthFailures = 3

var (
	errAuthRequired = &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	errAuthFailed   = &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "Authentication credentials invalid"}
	errAuthSyntax   = &smtp.SMTPError{Code: 501, EnhancedCode: smtp.EnhancedCode{5, 5, 2}, Message: "Malformed authentication response"}
	errTooManyAuth  = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 7, 0}, Message: "Too many failed logins"}
	errSequence     = &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "A transaction is already open"}
	errCut          = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 4, 2}, Message: "Transfer incomplete, message discarded"}
	errTooBig       = &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 3, 4}, Message: "Message too big"}
)

// session is one go-smtp session. With BDAT go-smtp runs Data in a goroutine of its own, while Reset
// or Mail may already come for the next command, so Data works on a copy of the transaction.
type session struct {
	server   *Server
	gate     *gate
	failures int

	mu    sync.Mutex
	login string
	open  bool // MAIL was accepted
	from  string
	rcpts []string
}

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Auth implements smtp.AuthSession.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return strictServer{sasl.NewPlainServer(s.plain)}, nil
	case sasl.Login:
		return strictServer{&loginServer{authenticate: s.authenticate}}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

func (s *session) plain(authzid, login, password string) error {
	if authzid != "" && authzid != login { // RFC 4616 §2: nobody acts for somebody else here
		return s.authFailed()
	}
	return s.authenticate(login, password)
}

func (s *session) authenticate(login, password string) error {
	// Both are compared always and by digest, so that time tells neither which is wrong nor a length.
	ok := same(login, s.server.opts.Username) & same(password, s.server.opts.Password)
	if ok != 1 {
		return s.authFailed()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = login
	return nil
}

func same(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// authFailed counts, since go-smtp lets a client try for ever.
func (s *session) authFailed() error {
	if s.failures++; s.failures < maxAuthFailures {
		return errAuthFailed
	}
	s.gate.fail(io.EOF) // the reply still leaves, the next read ends the session
	return errTooManyAuth
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login == "" {
		return errAuthRequired
	}
	if s.open { // go-smtp would keep the recipients of the first
		return errSequence
	}
	s.open, s.from, s.rcpts = true, from, nil
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcpts = append(s.rcpts, to)
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	s.mu.Lock()
	m := Message{From: s.from, Recipients: slices.Clone(s.rcpts), Login: s.login}
	s.mu.Unlock()
	limit := s.server.opts.MaxMessageSize
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return s.dataError(err)
	}
	// The end of the connection looks like the end of a BDAT message to go-smtp. Reading stops for
	// good at that end, so if it has come there was no clean end of the message before it.
	if s.gate.ended() != nil {
		return errCut
	}
	if int64(len(data)) > limit {
		return errTooBig
	}
	m.Data, m.Received, m.TLS = data, time.Now(), s.gate.tlsState()
	if err := s.server.keep(m); err != nil {
		return errCut
	}
	return nil
}

// dataError ends the connection after anything but a size refusal: after a time-out go-smtp would
// run the rest of the message as commands.
func (s *session) dataError(err error) error {
	if errors.Is(err, smtp.ErrDataTooLarge) {
		return errTooBig
	}
	return errCut // the gate, if the error was its own, reads nothing any more
}

// Reset implements smtp.Session.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.from, s.rcpts = false, "", nil
}

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }
