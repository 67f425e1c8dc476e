package large

import (
	"path"
	"slices"
	"strings"

	"postern/mail"
)

// What a rebuilt message would falsify is refused: what is about its own octets, what programs act on, and header
// fields that keep programs from answering each other. Files in a message/rfc822 keep all of that, and pass.

// sealed refuses a part.
func sealed(e *entity) error {
	switch e.media {
	case "multipart/signed":
		return refuse("5.6.0", "it is signed (multipart/signed), and the signature would not survive")
	case "multipart/encrypted":
		return refuse("5.6.0", "it is encrypted (multipart/encrypted), and could not be opened any more")
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		return refuse("5.6.0", "it is signed or encrypted by S/MIME (%s)", e.media)
	case "application/pgp", "application/x-pgp-message":
		return refuse("5.6.0", "it is signed or encrypted by PGP (%s)", e.media)
	case "message/partial", "message/external-body":
		return refuse("5.6.0", "it has a %s, which Graph has no word for", e.media)
	case "text/calendar":
		return refuse("5.6.0", "it is or has an invitation (text/calendar), which would become a mere file")
	case "multipart/report", "message/delivery-status", "message/global-delivery-status", "message/feedback-report",
		"message/disposition-notification", "message/global-disposition-notification", "message/tracking-status":
		return refuse("5.6.0", "it is a report for programs (%s), which would become a mere file, and be answered "+
			"as if a person had sent it", e.media)
	case "multipart/appledouble":
		return refuse("5.6.0", "it has a file of a Mac in two parts (multipart/appledouble), which would come apart")
	}
	return nil
}

// faithful refuses a message as a whole.
func faithful(h mail.Header, top *entity) error {
	ext := strings.ToLower(path.Ext(top.name))
	if !top.isMultipart() && (ext == ".p7m" || ext == ".p7s") { // RFC 8551 §3.9
		return refuse("5.6.0", "it is signed or encrypted by S/MIME (%s)", mail.Printable(top.name))
	}
	for _, f := range h.Fields {
		lower := strings.ToLower(f.Name)
		switch {
		case f.Is("Auto-Submitted") && strings.HasPrefix(keyword(f.Value()), "auto-") &&
			keyword(f.Value()) != "auto-generated":
			return refuse("5.6.0", "it is an automatic reply (Auto-Submitted: %s); that field would be lost, and "+
				"programs would answer each other", mail.Printable(keyword(f.Value())))
		case strings.HasPrefix(lower, "list-"):
			return refuse("5.6.0", "it is of a mailing list, or can be unsubscribed from, and its %s would be lost",
				mail.Printable(f.Name))
		case strings.HasPrefix(lower, "resent-"):
			return refuse("5.6.0", "it is a message that was redirected, and its %s would be lost",
				mail.Printable(f.Name))
		}
	}
	return nil
}

// keyword is the first word of a value (RFC 3834 §5), lower case.
func keyword(value string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(value), ";")
	word, _, _ = strings.Cut(word, "(")
	return strings.ToLower(strings.TrimSpace(word))
}

// suppressField says to Exchange, and to other responders, what Auto-Submitted and Precedence would (MS-OXCMAIL,
// 2.2.3.2.14). Graph takes fields that begin with X-, and no others.
const suppressField = "X-Auto-Response-Suppress"

// isAutomatic reports a message of a program that no other program should answer.
func isAutomatic(h mail.Header) bool {
	return keyword(h.Get("Auto-Submitted")) == "auto-generated" ||
		slices.Contains([]string{"bulk", "junk", "list", "auto_reply"}, keyword(h.Get("Precedence")))
}
