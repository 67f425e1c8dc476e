// Package dpapi seals short secrets with a key that Windows keeps for this machine: what is sealed opens on this
// installation of Windows only, for whoever may run programs there.
package dpapi

import (
	"encoding/base64"
	"errors"
	"fmt"
)

// Prefix marks a sealed secret; what follows is base64.
const Prefix = "dpapi:"

// ErrElsewhere is what other systems have to say.
var ErrElsewhere = errors.New("is for Windows, which keeps the key; here write file:PATH, of a file that only the " +
	"service may read")

// Seal returns Prefix and the sealed secret. Where there is no Windows: ErrElsewhere.
func Seal(secret []byte) (string, error) {
	sealed, err := protect(secret)
	if err != nil {
		return "", err
	}
	return Prefix + base64.StdEncoding.EncodeToString(sealed), nil
}

// Open returns the secret of a text without Prefix. The error says what to do, and continues "dpapi:…".
func Open(text string) ([]byte, error) {
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(sealed) == 0 {
		return nil, errors.New("is cut short or changed, write the whole line that postern secret protect printed")
	}
	secret, err := unprotect(sealed)
	if err != nil && !errors.Is(err, ErrElsewhere) {
		err = fmt.Errorf("cannot be opened here (%w): it was made on another machine or before Windows was installed "+
			"anew, or it was changed; make it again: postern secret protect", err)
	}
	return secret, err
}
