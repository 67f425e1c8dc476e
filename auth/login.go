package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
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
	return lowerASCII(s), true
}

func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.Map(func(r rune) rune {
				if r >= 'A' && r <= 'Z' {
					return r + 'a' - 'A'
				}
				return r
			}, s)
		}
	}
	return s
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
	for _, r := range s {
		if !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}

// loginSpecial cannot stand in the login of a new user: it means something in patterns, in lists or in
// a shell.
const loginSpecial = "*?!{}[]()<>,;:\"'`\\|&$#"

// CheckLogin reports what is wrong with a login that a person wants to create.
func CheckLogin(login string) error {
	switch {
	case login == "":
		return errors.New("the login is empty")
	case len(login) > MaxLength:
		return fmt.Errorf("the login is longer than %d octets", MaxLength)
	case !printable(login):
		return errors.New("the login has characters that cannot be printed")
	case strings.ContainsFunc(login, unicode.IsSpace):
		return errors.New("the login has a blank in it; write it with '-' or '.'")
	case strings.ContainsAny(login, loginSpecial):
		return fmt.Errorf("the login has one of %s in it; use letters, digits and any of - _ . + @ / %%", loginSpecial)
	case login[0] == '-' || login[0] == '@':
		return fmt.Errorf("the login begins with %q; begin it with a letter or a digit", login[:1])
	}
	return nil
}

// MinChosen is the least length of a chosen password, in characters (NIST SP 800-63B-4 §3.1.1.2 asks
// for 8 beside a second factor; what is used over years in mail clients should have more).
const MinChosen = 10

// CheckPassword reports what is wrong with a password that a person wants to choose.
func CheckPassword(login string, password Secret) error {
	pw := string(password)
	switch {
	case pw == "":
		return errors.New("the password is empty")
	case len(pw) > MaxLength:
		return fmt.Errorf("the password is longer than %d octets", MaxLength)
	case !printable(pw):
		return errors.New("the password has characters that cannot be printed: many clients could not send it")
	case utf8.RuneCountInString(pw) < MinChosen:
		return fmt.Errorf("the password is shorter than %d characters", MinChosen)
	case lowerASCII(pw) == lowerASCII(login):
		return errors.New("the password is the login")
	}
	return nil
}
