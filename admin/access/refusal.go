package access

import (
	"errors"
	"fmt"
	"time"
)

// Reason is why somebody is not let in. Pages have a text for each.
type Reason string

// The reasons.
const (
	ReasonWrong        Reason = "wrong"         // name, password or code
	ReasonLockedOut    Reason = "locked-out"    // until Refusal.Until
	ReasonCodesUsedUp  Reason = "codes-used-up" // too many wrong codes: reset, or a passkey
	ReasonBusy         Reason = "busy"
	ReasonPasskey      Reason = "passkey" // it does not prove who this is
	ReasonNoPasskeys   Reason = "no-passkeys"
	ReasonFlow         Reason = "flow" // took too long, or cookies are off
	ReasonLinkUnknown  Reason = "link-unknown"
	ReasonLinkUsed     Reason = "link-used"
	ReasonLinkExpired  Reason = "link-expired"
	ReasonLinkReplaced Reason = "link-replaced"
	ReasonPassword     Reason = "password" // the new one cannot be taken; Refusal.Err says why
	ReasonCode         Reason = "code"     // the code that is to prove the new authenticator
	ReasonNoFactor     Reason = "no-factor"
	ReasonSession      Reason = "session" // there is none
	ReasonIdle         Reason = "idle"    // the session was not used for 30 minutes
	ReasonOver         Reason = "over"    // the session had its 12 hours
	ReasonToken        Reason = "token"
	ReasonTokenExpired Reason = "token-expired"
	ReasonTokenNetwork Reason = "token-network"
	ReasonOIDC         Reason = "oidc"        // the provider's answer is not right, or it refused
	ReasonOIDCDown     Reason = "oidc-down"   // the provider does not answer
	ReasonOIDCGroups   Reason = "oidc-groups" // none of the person's groups has a role here
	ReasonOIDCName     Reason = "oidc-name"   // somebody else has the name
	ReasonDisabled     Reason = "disabled"
	ReasonNotFresh     Reason = "not-fresh" // the provider did not ask again
	ReasonProvider     Reason = "provider"  // password and factors are the login provider's
	ReasonLastWay      Reason = "last-way"  // nobody could log in any more
	ReasonTooMany      Reason = "too-many-passkeys"
	ReasonNoSuch       Reason = "no-such" // passkey or session of one's own
)

var texts = map[Reason]string{
	ReasonWrong:     "the name, the password or the code is wrong",
	ReasonLockedOut: "too many wrong attempts: try again later",
	ReasonCodesUsedUp: "too many wrong codes: log in with a passkey, or have the login reset with `postern console " +
		"reset`",
	ReasonBusy:         "too many people log in at once: try again in a minute",
	ReasonPasskey:      "the passkey does not prove who you are: try again, or use password and code",
	ReasonNoPasskeys:   "passkeys need a host name: open the console by name instead of by address",
	ReasonFlow:         "that took too long, or the browser keeps no cookies: begin again",
	ReasonLinkUnknown:  "this link is not known: copy it whole, or ask for a new one",
	ReasonLinkUsed:     "this link was used already, and works only once: log in, or ask for a new one",
	ReasonLinkExpired:  "this link has expired: it works for 15 minutes; ask for a new one",
	ReasonLinkReplaced: "this link does not work any more, a newer one took its place: use that one",
	ReasonPassword:     "this password cannot be taken",
	ReasonCode: "the code is not that of the authenticator: check the clock of the phone, and try the next " +
		"code",
	ReasonNoFactor:     "a second factor is needed: an authenticator's code or a passkey",
	ReasonSession:      "log in first",
	ReasonIdle:         "the session ended after 30 minutes without use: log in again",
	ReasonOver:         "the session ended after 12 hours: log in again",
	ReasonToken:        "the token is not valid: send it whole, as Authorization: Bearer pst_…",
	ReasonTokenExpired: "the token has expired: make a new one",
	ReasonTokenNetwork: "the token may not be used from this address",
	ReasonOIDC:         "the login provider's answer cannot be used: begin again",
	ReasonOIDCDown:     "the login provider does not answer: try again later",
	ReasonOIDCGroups:   "you are known, but none of your groups may use this console: ask its administrator",
	ReasonOIDCName:     "somebody else has this name here: ask the administrator",
	ReasonDisabled:     "this login is switched off: ask the administrator",
	ReasonProvider:     "password and second factor are kept by your organisation's login: change them there",
	ReasonLastWay:      "it is your last way in: add another passkey or an authenticator first",
	ReasonTooMany:      "you have as many passkeys as are kept: remove one first",
	ReasonNoSuch:       "it is not there any more",
	ReasonNotFresh:     "the login provider did not ask for your login again: log out there, and try again",
}

// Refusal is why somebody is not let in.
type Refusal struct {
	Reason Reason
	Until  time.Time // of ReasonLockedOut
	Err    error     // for the log; of ReasonPassword for the person too
}

// Error returns the English text, and the cause.
func (r *Refusal) Error() string {
	text := texts[r.Reason]
	if !r.Until.IsZero() {
		text += " (after " + r.Until.UTC().Format("15:04 UTC") + ")"
	}
	if r.Err != nil {
		return text + ": " + r.Err.Error()
	}
	return text
}

// Text is what the person may be told, in English.
func (r *Refusal) Text() string {
	if r.Reason == ReasonPassword {
		return r.Error()
	}
	without := *r
	without.Err = nil
	return without.Error()
}

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason Reason, cause error) error { return &Refusal{Reason: reason, Err: cause} }

func refusef(reason Reason, format string, args ...any) error {
	return refuse(reason, fmt.Errorf(format, args...))
}

// ReasonOf returns why somebody was refused, "" if err is something else.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	return ""
}
