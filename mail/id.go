package mail

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewID returns an identifier for a message or a session. Its 16 characters sort by time: 48 bits of milliseconds and
// 32 random bits, in an alphabet without look-alikes, for reading aloud.
func NewID(now time.Time) string {
	var b [10]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:]) // never fails: crypto/rand crashes the program instead
	return idEncoding.EncodeToString(b[:])
}
