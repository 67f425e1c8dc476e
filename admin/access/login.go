package access

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/store"
)

// The names of what this package does, in the audit.
const (
	opLogin  = "console login"
	opLogout = "console logout"
	opStepUp = "console second factor"
	opAccept = "console accept"
)

// Logins are logins with password and code, and the sessions that all logins open.
type Logins struct{ factors }

// Credentials are what somebody types to log in.
type Credentials struct{ Name, Password, Code string }

// maxWrongCodes is how many wrong codes in a row a user may give, from wherever, whoever knows the password (NIST SP
// 800-63B-4 §3.2.2: at most 100). After that codes are not taken until the login is reset.
const maxWrongCodes = 100

// Login lets in who has a password and a code of the authenticator. It returns what the browser is to keep as cookie.
func (a Logins) Login(ctx context.Context, c Credentials, client string) (string, error) {
	name, _ := auth.NormalizeLogin(c.Name)
	who := operate.Actor{Name: name, Channel: operate.Console, Client: client}
	u, err := a.login(ctx, name, c, client)
	if err != nil {
		a.auditFailure(ctx, who, opLogin, err)
		return "", err
	}
	return a.enter(ctx, u, who, true, "password and code")
}

func (a Logins) login(ctx context.Context, name string, c Credentials, client string) (store.ConsoleUser, error) {
	if err := a.checkPassword(ctx, name, c.Password, client); err != nil {
		return store.ConsoleUser{}, err
	}
	return a.takeCode(ctx, name, c.Code, client, true)
}

// checkPassword refuses a password that is not the user's, and whom the lockout keeps out: package auth lets a right
// password past it, and then it is the code that is guessed.
func (a factors) checkPassword(ctx context.Context, name, password, client string) error {
	_, err := a.auth.Authenticate(ctx, name, password, addrOf(client))
	if err == nil {
		return a.lockedNow(name, client)
	}
	if known, ok := errors.AsType[*mail.Error](err); ok && known.Reply.Code/100 == 5 {
		if locked := a.lockedNow(name, client); locked != nil {
			return locked
		}
		return refuse(ReasonWrong, err)
	}
	return refuse(ReasonBusy, err)
}

// lockedNow refuses whom the lockout keeps out.
func (a *core) lockedNow(name, client string) error {
	until := a.auth.LockedUntil(name, addrOf(client))
	if until.IsZero() {
		return nil
	}
	return &Refusal{Reason: ReasonLockedOut, Until: until}
}

// takeCode takes a code of a user's authenticator, each once, and remembers in the same transaction that it was taken.
func (a Logins) takeCode(ctx context.Context, name, code, client string, login bool) (user store.ConsoleUser,
	err error) {
	var refused error
	err = a.store.ChangeConsoleUser(ctx, name, func(u *store.ConsoleUser, exists bool, _ []store.ConsoleUser) (bool,
		error) {
		refused = nil
		now := a.now()
		step, right := matchCode(string(u.TOTP), code, now)
		switch {
		case !exists || !u.Active() || u.TOTP == "":
			return false, refusef(ReasonWrong, "no authenticator")
		case u.WrongCodes >= maxWrongCodes:
			return false, refusef(ReasonCodesUsedUp, "%d wrong codes in a row", u.WrongCodes)
		case !right:
			refused = refusef(ReasonWrong, "the code is wrong")
			u.WrongCodes++
		case step <= u.TOTPStep:
			return false, refusef(ReasonWrong, "the code was used already")
		default:
			u.TOTPStep, u.WrongCodes = step, 0
			if login {
				u.LastLogin = now
			}
		}
		user = *u
		return true, nil
	})
	if refused != nil {
		a.auth.Failed(name, "code "+code, addrOf(client))
		return store.ConsoleUser{}, refused
	}
	return user, err
}

// codes are what every authenticator application understands.
var codes = totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}

// matchCode compares a code with those of this half minute, the one before and the one after (RFC 6238 §5.2), and
// returns which it is.
func matchCode(secret, code string, now time.Time) (step int64, ok bool) {
	code = strings.ReplaceAll(strings.TrimSpace(code), " ", "")
	for skew := int64(-1); skew <= 1; skew++ {
		at := now.Unix()/int64(codes.Period) + skew
		want, err := totp.GenerateCodeCustom(secret, time.Unix(at*int64(codes.Period), 0), codes)
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			step, ok = at, true
		}
	}
	return step, ok
}

// enter opens the session of somebody who has proved who they are.
func (a *core) enter(ctx context.Context, u store.ConsoleUser, who operate.Actor, strong bool, how string) (string,
	error) {
	who.Name, who.Role = u.Name, roleOf(u)
	token, err := a.begin(a.recorded(ctx, who, opLogin, "", how), u, who.Client, strong, nil)
	if err != nil {
		return "", err
	}
	a.log.Info("console: logged in", "name", u.Name, "role", u.Role, "client", who.Client)
	return token, nil
}

// auditFailure records that somebody was not let in: in the log each time, in the audit once an hour for each user,
// since whoever guesses would otherwise push out what was done.
func (a *core) auditFailure(ctx context.Context, who operate.Actor, op string, err error) {
	if ReasonOf(err) == "" {
		return
	}
	a.log.Warn("console: refused", "operation", op, "name", who.Name, "client", who.Client, "reason", err)
	if _, unknown := a.store.ConsoleUser(ctx, who.Name); unknown != nil || a.failed.Contains(who.Name) {
		return
	}
	a.failed.Add(who.Name, struct{}{})
	detail := fmt.Sprintf("%v; more of the same within an hour are in the log", err)
	if err := a.record(ctx, who, op, "", detail, store.AuditRefused); err != nil {
		a.log.Error("console: the audit was not written", "err", err)
	}
}

// AddrOf is the address that a request comes from, as package auth wants it; the invalid one is a place too.
func AddrOf(r *http.Request) netip.Addr { return addrOf(ClientOf(r)) }

// addrOf reads a client's address; the invalid one is a place too.
func addrOf(client string) netip.Addr {
	addr, _ := netip.ParseAddr(client)
	return addr.Unmap()
}
