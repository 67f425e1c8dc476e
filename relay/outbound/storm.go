package outbound

import (
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/upstream"
	"postern/relay/upstream/storm"
)

// No list of reply rules is ever complete, and an unknown refusal of our account would bounce everybody's mail. So
// every permanent refusal is shown to the upstream's storm.Watch before it is believed.

// stormRetry is the delay of a message whose refusal is not believed and pauses nothing.
const stormRetry = 15 * time.Minute

const noteStorm = "not believed: this upstream refuses mail of others with the same text and hardly takes any, so " +
	"the account is to blame; the message is kept"

// maxTexts bounds how many different texts of one message are looked at.
const maxTexts = 8

// review is upstream.Transaction.Review for a message whose recipients are those at pending. One message counts once
// for each text, however many recipients it has.
func (a *attempt) review(up *Upstream, pending []int, results []mail.Result) upstream.Doubt {
	now, m := time.Now(), a.message
	at := storm.Attempt{Identity: results[0].Identity, Login: m.Login}
	if m.Envelope.From.IsNull() {
		at.Login = storm.Null
	}
	if taken := takenFor(m, pending, results); taken >= 0 {
		at.Domain, at.Internal = domainOf(m, taken)
		up.storms.Delivered(now, at)
		return upstream.Believed // what it is refused beside that is the matter of these recipients
	}
	type seen struct {
		words   []string
		verdict storm.Verdict
	}
	var texts []seen
	worst := storm.Believe
	for i := range results {
		r := &results[i]
		if !r.Class.Permanent() || r.Rule == "" { // taken for true, or our own words
			up.explained(r)
			continue
		}
		n := pending[r.Recipient]
		personal := personalOf(m, n)
		words := storm.Words(r.Reply, personal...)
		k := slices.IndexFunc(texts, func(t seen) bool { return slices.Equal(t.words, words) })
		if k < 0 && len(texts) < maxTexts && !up.explained(r) {
			at.Domain, at.Internal = domainOf(m, n)
			verdict, begun := up.storms.Refused(now, storm.Refusal{Attempt: at, Stage: r.Stage, Reply: r.Reply,
				Personal: personal,
				Repeated: keptBefore(m, n, r.Reply, personal)})
			if begun {
				a.stormBegan(up, r)
			}
			texts = append(texts, seen{words, verdict})
			k = len(texts) - 1
		}
		if k >= 0 && texts[k].verdict != storm.Believe {
			doubt(r, texts[k].verdict)
			worst = max(worst, texts[k].verdict)
		}
	}
	return doubtOf(worst, up.ownIdentity(m), at.Identity)
}

// takenFor returns a recipient that the message was taken for, somebody outside rather than inside; -1: none.
func takenFor(m *queue.Message, pending []int, results []mail.Result) int {
	taken := -1
	for i := range results {
		if results[i].Class != mail.Delivered {
			continue
		}
		taken = pending[results[i].Recipient]
		if !strings.EqualFold(m.Recipients[taken].To.Domain, m.Envelope.From.Domain) {
			break
		}
	}
	return taken
}

// domainOf returns a recipient's domain, and whether the sender's is the same.
func domainOf(m *queue.Message, n int) (domain string, internal bool) {
	domain = strings.ToLower(m.Recipients[n].To.Domain)
	return domain, strings.EqualFold(domain, m.Envelope.From.Domain)
}

// personalOf are the parts of a message's addresses, which replies repeat.
func personalOf(m *queue.Message, n int) []string {
	to, from := m.Recipients[n].To, m.Envelope.From
	login, _, _ := strings.Cut(m.Login, "@")
	return []string{to.Local, to.Domain, from.Local, from.Domain, m.Author.Local, m.Login, login}
}

// keptBefore reports that a recipient was refused with the same text in an earlier attempt, and yet waits.
func keptBefore(m *queue.Message, n int, r mail.Reply, personal []string) bool {
	before := m.Recipients[n].Reply
	return before.Permanent() && !m.Envelope.From.IsNull() && storm.Same(before, r, personal...)
}

// doubt makes an account fault of a refusal.
func doubt(r *mail.Result, v storm.Verdict) {
	r.Class, r.Rule, r.RetryAfter = mail.AccountFault, upstream.RuleStorm, 0
	r.Note = noteStorm
	if v == storm.KeepMessage {
		r.RetryAfter = stormRetry
	}
}

func doubtOf(v storm.Verdict, own, identity string) upstream.Doubt {
	switch {
	case v == storm.KeepIdentity, v == storm.KeepSender && own != "" && strings.EqualFold(own, identity):
		return upstream.DoubtIdentity
	case v == storm.KeepSender:
		return upstream.DoubtSender
	case v == storm.KeepMessage:
		return upstream.DoubtMessage
	}
	return upstream.Believed
}

// explained reports that one of the administrator's own rules matched a reply. Such a refusal is believed, and ends any
// doubt about its text.
func (u *Upstream) explained(r *mail.Result) bool {
	if r.Rule == "" || !u.written.Own(r.Rule) {
		return false
	}
	if _, number := u.written.Classify(r.Stage, r.Reply, time.Now()); number < 0 {
		return false
	}
	u.storms.Explained(r.Reply)
	return true
}

func (a *attempt) stormBegan(up *Upstream, r *mail.Result) {
	a.d.storms.WithLabelValues(up.Config.Name).Inc()
	a.d.Logger.Error("refusals are not believed any more: one text for all and hardly anything gets through; "+
		"the mail is kept", "upstream", up.Config.Name, "identity", r.Identity, "stage", string(r.Stage),
		"reply", r.Reply.String())
}

// stormsOf returns the Watch of an upstream, which outlives changes of its configuration; nil: there is none.
func (r *Routes) stormsOf(block config.Upstream) *storm.Watch {
	for _, old := range r.Upstreams {
		if old.Config.Name == block.Name && old.Config.SendsAsSender() == block.SendsAsSender() {
			return old.storms
		}
	}
	return nil
}
