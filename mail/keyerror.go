package mail

import "fmt"

// KeyError is a setting that a person has to write differently.
type KeyError struct {
	Key string // below the block that was checked, such as "client_id"
	Msg string // what is wrong, and what to write
}

// BadKey makes a KeyError.
func BadKey(key, format string, args ...any) error {
	return &KeyError{key, fmt.Sprintf(format, args...)}
}

// Error returns "key: message".
func (e *KeyError) Error() string { return e.Key + ": " + e.Msg }
