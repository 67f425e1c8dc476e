package smtp

import (
	"bytes"
	"strings"

	"postern/mail"
)

// farewell reports that b, which nobody asked for, begins with the goodbye of a server (RFC 5321 §3.8).
func farewell(b []byte) bool {
	return bytes.HasPrefix(b, []byte("421")) || bytes.HasPrefix(b, []byte("221"))
}

// refusalIn reports that among the replies in b, the last of which may be cut off, is one that refuses something.
func refusalIn(b []byte) bool {
	for line := range bytes.Lines(b) {
		if (line[0] == '4' || line[0] == '5') && !farewell(line) {
			return true
		}
	}
	return false
}

// doubtful reports that a 2yz may have been meant for another command than the message, judged by what came behind it.
func doubtful(r mail.Reply, behind []byte) bool {
	return ofAddress(r) || refusalIn(behind) && !ofMessage(r)
}

// ofAddress reports a reply that speaks of an address (RFC 3463 §3.2), as those to MAIL and RCPT do.
func ofAddress(r mail.Reply) bool { return len(r.Enhanced) > 3 && r.Enhanced[1:4] == ".1." }

// ofMessage reports a reply that speaks of a message.
func ofMessage(r mail.Reply) bool {
	if r.Enhanced != "" {
		return !ofAddress(r)
	}
	text := strings.ToLower(r.Text)
	for _, word := range []string{"queued", "stored", "taken", "delivered", "delivery", "message", "id=", "spooled"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
