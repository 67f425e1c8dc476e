package wire

import (
	"fmt"
	"time"

	"postern/mail"
)

// Replies that people read. Mail programs show the text without its codes, so each says what to do in the words of
// their account settings.
var (
	loginNeeded = mail.R(530, "5.7.0",
		`login needed: set the authentication method to "normal password" and enter your user name`)
	noLoginHere = mail.R(504, "5.5.4",
		`no login is needed here: set the authentication method to "no authentication"`)
	// unplaced answers a client whose address the proxy did not give.
	unplaced = mail.R(530, "5.7.0", "the proxy in front of this server did not say where you connect from; "+
		"the administrator has to set it to send PROXY headers with addresses")
	tooManyFromAddress = mail.R(421, "4.7.0",
		"too many connections from your address at once; close some or try again later")
)

// What the log says of clients that do not speak TLS where they should.
const (
	setSecurity  = "; set its connection security to SSL/TLS, or use the STARTTLS port"
	waitsInClear = "the client probably waits for a plaintext greeting" + setSecurity
	notTLS       = "no TLS handshake: the client sent something else, probably plaintext SMTP" + setSecurity
)

// securityNeeded tells a plaintext client what to change.
func (o *Options) securityNeeded() string {
	if o.TLSMode == Auto {
		return "this connection is not encrypted: set the connection security to STARTTLS or SSL/TLS"
	}
	return "this connection is not encrypted: set the connection security to STARTTLS"
}

// tlsFirst answers clients that do not begin with TLS on an Implicit listener.
var tlsFirst = mail.R(554, "5.7.0", "this port speaks TLS from the first byte; set the connection security to SSL/TLS")

// tooBig states the limit in the unit of the configuration.
func (c *Conn) tooBig() mail.Reply {
	return mail.R(552, "5.3.4",
		"message too big: the limit is %s; attachments count about a third more than their size",
		sizeText(c.opt.MaxMessageSize))
}

// tooMany answers recipients over the limit of one message.
func (o *Options) tooMany() mail.Reply {
	return mail.R(452, "4.5.3", "too many recipients: at most %d per message; send it in parts", o.MaxRecipients)
}

var sizeUnits = []struct {
	octets int64
	name   string
}{
	{1 << 30, "GiB"}, {1e9, "GB"}, {1 << 20, "MiB"}, {1e6, "MB"}, {1 << 10, "KiB"}, {1e3, "KB"},
}

// sizeText writes a size in the largest unit that keeps it whole.
func sizeText(n int64) string {
	best, name := n, "octets"
	for _, u := range sizeUnits {
		if n%u.octets == 0 && n > 0 && n/u.octets < best {
			best, name = n/u.octets, u.name
		}
	}
	return fmt.Sprintf("%d %s", best, name)
}

// span writes a duration for people.
func span(d time.Duration) string {
	for _, u := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.length; n > 0 && d%u.length == 0 {
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return d.String()
}
