package outbound

import (
	"strings"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/upstream/profile"
)

// tell adds to results what is known of the provider, for readers of the trace: whether it replaces the Message-ID, its
// own id of the message, and, if it refused the sender, which senders it accepts.
func (u *Upstream) tell(results []mail.Result, m *queue.Message) {
	var words string
	for i := range results {
		r := &results[i]
		if i == 0 || !sameSaid(r, &results[i-1]) { // most recipients of a message are told the same
			words = u.wordsFor(r, m)
		}
		if words != "" {
			r.Note = strings.TrimPrefix(r.Note+"; "+words, "; ")
		}
	}
}

func sameSaid(a, b *mail.Result) bool {
	return a.Class == b.Class && a.Stage == b.Stage && a.Rule == b.Rule && a.Reply == b.Reply
}

func (u *Upstream) wordsFor(r *mail.Result, m *queue.Message) string {
	switch {
	case r.Class == mail.Delivered:
		return u.messageIDWords(r.Reply, m.MessageID)
	case r.Class == mail.AccountFault && r.OfSender:
		return u.senderWords(r.Identity)
	}
	return ""
}

// messageIDWords says what happened to the Message-ID, as far as message_id of the upstream and its reply tell.
func (u *Upstream) messageIDWords(r mail.Reply, ours string) string {
	id := ""
	if p, ok := profile.Get(u.Config.Provider); ok {
		id = p.IDIn(r)
	}
	if id == ours { // it answers with the Message-ID, which then is the one that we know
		if id != "" && u.Config.MessageID != profile.MessageIDReplaced {
			return ""
		}
		id = ""
	}
	id = mail.Cut(id, maxProviderID)
	switch {
	case u.Config.MessageID == profile.MessageIDReplaced && id != "":
		return "the provider replaces Message-ID, and knows the message as " + id
	case u.Config.MessageID == profile.MessageIDReplaced:
		return "the provider replaces Message-ID"
	case id != "":
		return "the provider knows the message as " + id
	}
	return ""
}

// maxProviderID bounds a provider's id in a note, in octets. Real ones have up to 90.
const maxProviderID = 200

// senderWords says which senders the provider accepts from an identity.
func (u *Upstream) senderWords(identity string) string {
	if identity == "" {
		identity = "the account"
	}
	switch u.Config.SenderRule {
	case profile.SenderDomain:
		return "the sender and From must be of an address or a domain that is verified at the provider"
	case profile.SenderMustMatch:
		return "the sender and From must be " + identity + ", an alias of it, or an address that it may send as"
	case profile.SenderRewritten:
		return "the provider lets " + identity + " and its confirmed aliases send"
	}
	return ""
}
