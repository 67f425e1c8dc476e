package door

import (
	"errors"
	"time"

	"postern/admin/access"
	"postern/admin/console"
	"postern/auth"
	"postern/mail"
)

// reasonRepeat: the password was not typed the same twice.
const reasonRepeat access.Reason = "repeat"

// maxName bounds a name that a page shows again, in octets.
const maxName = 320

func clean(name string) string { return mail.Cut(mail.Printable(name), maxName) }

func refusedFor(reason access.Reason) error { return &access.Refusal{Reason: reason} }

func asRefusal(err error) (access.Refusal, bool) {
	r, ok := errors.AsType[*access.Refusal](err)
	if !ok {
		return access.Refusal{}, false
	}
	return *r, true
}

// say is why somebody is kept out, in their language; "" for trouble of ours.
func say(v *console.Visit, err error) string {
	r, ok := asRefusal(err)
	if !ok {
		return ""
	}
	switch r.Reason {
	case access.ReasonWrong:
		return v.T("The name, the password or the code is wrong. A code can be used once: wait for the next one.")
	case access.ReasonLockedOut:
		return v.T("Too many wrong attempts. Try again in %s.", v.Span(r.Until.Sub(v.Now)+time.Minute))
	case access.ReasonCodesUsedUp:
		return v.T("Too many wrong codes. Use a passkey, or have the login reset: postern console reset NAME")
	case access.ReasonBusy:
		return v.T("Too many logins at once. Wait a minute and try again.")
	case access.ReasonFlow:
		return v.T("That took too long, or the browser keeps no cookies. Begin again.")
	case access.ReasonDisabled:
		return v.T("This login is switched off. Ask whoever manages the console.")
	case access.ReasonIdle:
		return v.T("You were signed out after 30 minutes without use.")
	case access.ReasonOver:
		return v.T("You were signed out after 12 hours.")
	case access.ReasonSession:
		return v.T("Please sign in.")
	}
	if text := saySecond(v, r.Reason); text != "" {
		return text
	}
	if text := sayOwn(v, r.Reason); text != "" {
		return text
	}
	if text := sayOIDC(v, r.Reason); text != "" {
		return text
	}
	return v.T("You cannot be let in. The relay's log says why.")
}

// saySecond is about passwords and factors that somebody chooses or brings.
func saySecond(v *console.Visit, reason access.Reason) string {
	switch reason {
	case access.ReasonPasskey:
		return v.T("The passkey does not prove who you are. Try again, or use password and code.")
	case access.ReasonNoPasskeys:
		return v.T("Passkeys need a host name. Open the console by its name instead of by its address.")
	case access.ReasonPassword:
		return v.T("This password cannot be taken. Choose one of at least %d characters that is not your name.",
			auth.MinChosen)
	case reasonRepeat:
		return v.T("The two passwords are not the same. Type the new password again, twice.")
	case access.ReasonCode:
		return v.T("The code does not fit. Check that the clock of the phone is right, and type the next code.")
	case access.ReasonNoFactor:
		return v.T("A second factor is needed: type the code of the authenticator app, or use a passkey.")
	}
	return ""
}

// sayOwn is about what people change of their own account.
func sayOwn(v *console.Visit, reason access.Reason) string {
	switch reason {
	case access.ReasonLastWay:
		return v.T("This is your last way in. Add another passkey or an authenticator app first.")
	case access.ReasonTooMany:
		return v.T("You have as many passkeys as are kept. Remove one first.")
	case access.ReasonNoSuch:
		return v.T("It is not there any more.")
	case access.ReasonProvider:
		return v.T("Your organisation's login keeps your password and second factor. Change them there.")
	}
	return ""
}

// sayOIDC is about logins by OpenID Connect.
func sayOIDC(v *console.Visit, reason access.Reason) string {
	switch reason {
	case access.ReasonOIDC:
		return v.T("The answer of the login provider cannot be used. Begin again.")
	case access.ReasonOIDCDown:
		return v.T("The login provider does not answer. Try again later, or use password and code.")
	case access.ReasonOIDCGroups:
		return v.T("You are known, but none of your groups may use this console. Ask whoever manages it.")
	case access.ReasonOIDCName:
		return v.T("Somebody else has this name here. Ask whoever manages the console.")
	case access.ReasonNotFresh:
		return v.T("The login provider did not ask for your login again. Sign out there, and try again.")
	}
	return ""
}
