package clientsetup

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/smallstep/pkcs7"

	"postern/mail"
	"postern/relay/config"
)

// Apple returns the profile with which macOS, iOS and iPadOS set up an account. It has no passwords: the device asks
// for both. The same address always makes the same profile, so that a newer one takes the place of an older.
func (s *Setup) Apple(address mail.Address) ([]byte, error) {
	if err := s.byPassword("Apple's profile"); err != nil {
		return nil, err
	}
	full := mail.Address{Local: address.Local, Domain: mail.ALabels(address.Domain)}.String()
	id := reversed(s.best().Host) + ".postern.mail." + hex.EncodeToString(digest("profile", full)[:8])
	profile := dict{
		{"PayloadContent", []dict{s.appleAccount(address, full, id)}},
		{"PayloadDescription", "Sets up mail of " + full + ". It contains no password."},
		{"PayloadDisplayName", s.Name + ": mail"},
		{"PayloadIdentifier", id},
		{"PayloadOrganization", s.Name},
		{"PayloadRemovalDisallowed", false},
		{"PayloadType", "Configuration"},
		{"PayloadUUID", uuid("profile", full)},
		{"PayloadVersion", 1},
	}
	var b bytes.Buffer
	b.WriteString(xml.Header + `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" ` +
		`"http://www.apple.com/DTDs/PropertyList-1.0.dtd">` + "\n" + `<plist version="1.0">` + "\n")
	profile.write(&b, "")
	b.WriteString("</plist>\n")
	return b.Bytes(), nil
}

// emailTypes are the protocols of mailboxes, as Apple calls them.
var emailTypes = map[string]string{config.IMAP: "EmailTypeIMAP", config.POP3: "EmailTypePOP"}

// appleAccount is the account in a profile. full is the address in A-labels.
func (s *Setup) appleAccount(address mail.Address, full, id string) dict {
	in, out := *s.Incoming, s.best()
	return dict{
		{"EmailAccountDescription", s.Name},
		{"EmailAccountType", emailTypes[in.Protocol]},
		{"EmailAddress", full},
		{"IncomingMailServerAuthentication", "EmailAuthPassword"},
		{"IncomingMailServerHostName", in.Host},
		{"IncomingMailServerPortNumber", in.Port},
		{"IncomingMailServerUseSSL", true}, // STARTTLS on the ports that have it
		{"IncomingMailServerUsername", login(in.Username, address)},
		{"OutgoingMailServerAuthentication", "EmailAuthPassword"},
		{"OutgoingMailServerHostName", out.Host},
		{"OutgoingMailServerPortNumber", out.Port},
		{"OutgoingMailServerUseSSL", true},
		{"OutgoingMailServerUsername", login(out.Username, address)},
		{"OutgoingPasswordSameAsIncomingPassword", false},
		{"PayloadDescription", "Mail of " + full},
		{"PayloadDisplayName", s.Name},
		{"PayloadIdentifier", id + ".account"},
		{"PayloadType", "com.apple.mail.managed"},
		{"PayloadUUID", uuid("account", full)},
		{"PayloadVersion", 1},
	}
}

// dict is a property list's dictionary, in order.
type dict []struct {
	key   string
	value any // string, int, bool or []dict
}

func (d dict) write(b *bytes.Buffer, indent string) {
	b.WriteString(indent + "<dict>\n")
	for _, e := range d {
		b.WriteString(indent + "  <key>" + e.key + "</key>\n")
		switch v := e.value.(type) {
		case string:
			b.WriteString(indent + "  <string>")
			xml.EscapeText(b, []byte(v)) // a buffer takes everything
			b.WriteString("</string>\n")
		case int:
			b.WriteString(indent + "  <integer>" + strconv.Itoa(v) + "</integer>\n")
		case bool:
			b.WriteString(indent + "  <" + strconv.FormatBool(v) + "/>\n")
		case []dict:
			b.WriteString(indent + "  <array>\n")
			for _, inner := range v {
				inner.write(b, indent+"    ")
			}
			b.WriteString(indent + "  </array>\n")
		}
	}
	b.WriteString(indent + "</dict>\n")
}

// reversed is a host name from its end: com.example.relay.
func reversed(host string) string {
	labels := strings.Split(host, ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}

func digest(what, address string) []byte {
	sum := sha256.Sum256([]byte("postern " + what + "\n" + address))
	return sum[:]
}

// uuid is a UUID of version 8 (RFC 9562 §5.8): always the same for an address.
func uuid(what, address string) string {
	b := digest(what, address)[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// Sign signs a profile (CMS SignedData, RFC 5652), with its content inside, as Apple's devices want it.
func Sign(profile []byte, by *tls.Certificate) ([]byte, error) {
	signed, err := pkcs7.NewSignedData(profile)
	if err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	chain, err := chainOf(by)
	if err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	// Parents are added by themselves, since AddSignerChain wants them in an order that files need not have.
	if err := signed.AddSigner(chain[0], by.PrivateKey, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	for _, parent := range chain[1:] {
		signed.AddCertificate(parent)
	}
	out, err := signed.Finish()
	if err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	return out, nil
}
