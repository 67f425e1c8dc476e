package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/mail"
)

// MaxLength bounds logins and passwords, in octets: bounded before anything is hashed.
const MaxLength = 256

// NormalizeLogin returns the login as it is kept and compared: ASCII letters in lower case, because
// people type capitals and devices make them. Other letters stay as they are, so that no two logins
// become one by a Unicode rule. ok is false for a login that nobody can have: empty, longer than
// MaxLength, not UTF-8, or with characters that are not printable.
func NormalizeLogin(s string) (login string, ok bool) {
	if s == "" || len(s) > MaxLength || !printable(s) {
		return "", false
	}
	return mail.LowerASCII(s), true
}

// printable reports whether s is valid UTF-8 without controls, C1 and direction marks included.
func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return printableUnicode(s)
		}
	}
	return true
}

func printableUnicode(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

// loginSpecial cannot stand in the login of a new user: it means something in patterns, in lists or in
// a shell.
const loginSpecial = "*?!{}[]()<>,;:\"'`\\|&$#"

// CheckLogin returns the normalised form of a login that a person wants to create, or what is wrong
// with it.
func CheckLogin(login string) (string, error) { return checkLogin(login, loginSpecial) }

// CheckProvided is CheckLogin for a login that somebody has at a provider of logins. People cannot choose another
// there, and O'Brien has an apostrophe.
func CheckProvided(login string) (string, error) {
	return checkLogin(login, strings.ReplaceAll(loginSpecial, "'", ""))
}

func checkLogin(login, special string) (string, error) {
	switch {
	case login == "":
		return "", errors.New("the login is empty")
	case len(login) > MaxLength:
		return "", fmt.Errorf("the login is longer than %d octets", MaxLength)
	case !printable(login):
		return "", errors.New("the login has characters that cannot be printed")
	case strings.ContainsFunc(login, unicode.IsSpace):
		return "", fmt.Errorf("the login %q has a blank in it; write a dot or a hyphen in its place", login)
	case strings.ContainsAny(login, special):
		return "", fmt.Errorf("the login %q has one of %s in it; use letters, digits and - _ . + @ / %%", login,
			special)
	case strings.ContainsRune("-@'", rune(login[0])):
		return "", fmt.Errorf("the login %q begins with %q; begin it with a letter or a digit", login, login[:1])
	}
	return mail.LowerASCII(login), nil
}

// CheckPassword reports why a password could never be used to log in.
func CheckPassword(password string) error {
	switch {
	case password == "":
		return errors.New("the password is empty")
	case len(password) > MaxLength:
		return fmt.Errorf("the password is longer than %d octets", MaxLength)
	case !printable(password):
		return errors.New("the password has characters that cannot be printed: many clients could not send it")
	}
	return nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// AdviseOn returns what is weak about a chosen password, or keeps devices from sending it, for a warning; "" if nothing
// strikes. It does not forbid: who may log in only from the own network may have reasons for a short one.
func AdviseOn(login, password string) string {
	switch {
	case mail.LowerASCII(password) == mail.LowerASCII(login):
		return "the password is the login: anybody can guess it"
	case utf8.RuneCountInString(password) < MinChosen:
		return fmt.Sprintf("the password has fewer than %d characters: without --password-stdin a strong one is made",
			MinChosen)
	}
	if why := untypable(password); why != "" {
		return "the password " + why
	}
	return ""
}

// untypable says what about a password keeps devices from sending it: many know ASCII and 31 characters only, and some
// panels and configuration pages change quotes, backslashes, tildes and outer blanks.
func untypable(password string) string {
	switch {
	case !isASCII(password):
		return "has letters beyond ASCII: some mail programs send them in another encoding, and most devices not at all"
	case len(password) > deviceLength:
		return fmt.Sprintf("is longer than the %d characters that many devices keep", deviceLength)
	case strings.ContainsAny(password, `"\~`):
		return `has a ", \ or ~, which many devices change or cannot type`
	case strings.TrimSpace(password) != password:
		return "begins or ends with a blank, which many devices cut off"
	}
	return ""
}

// deviceLength is how long a password may be that every device keeps whole.
const deviceLength = 31

// MinChosen is the length below which AdviseOn speaks up (NIST SP 800-63B-4 §3.1.1.2: at least 8, and
// 15 where the password is all there is; lockout stands between).
const MinChosen = 10
