// Package rights says who may use a file, and makes files that hold secrets for us alone. On Unix that is the mode; on
// Windows the access control list, where "us" are SYSTEM, the administrators, the owner and Postern's service.
package rights

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Service is the name of the service on Windows, which runs under the account `NT SERVICE\postern`.
const Service = "postern"

// Rights are those of others over a file or directory.
type Rights struct {
	AnyoneReads, AnyoneWrites bool // every user of this machine. On Windows the same as others
	OthersRead, OthersWrite   bool // somebody beside the owner; on Unix that may be a group
	Open                      bool // others may do anything at all
	IsDir                     bool

	said
}

// serviceSID is the SID of a service, which follows from its name, whether it is installed or not: what
// `sc showsid NAME` prints.
func serviceSID(name string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(strings.ToUpper(name))) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	sum := sha1.Sum(b)
	sid := "S-1-5-80"
	for part := sum[:]; len(part) > 0; part = part[4:] {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(part))
	}
	return sid
}
