package graph

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/mail"
)

// Graph has no key that would make a second sendMail of the same message harmless. What may have been sent is looked
// for in Sent Items before it is sent again, where the mailbox may be read; Mail.Send alone does not allow that.
const (
	lookAfter   = time.Minute      // how long a last attempt without an answer waits before it looks
	blindFor    = day              // how long a mailbox that may not be read is not asked again
	maxSentRead = 1 << 20          // octets of what Sent Items answers
	sentSkew    = 10 * time.Minute // how far the clocks may be apart
)

// mayLook reports whether the right to look is there, as far as that is known.
func (a *attempt) mayLook() bool {
	var blind bool
	a.u.Update(func() { blind = time.Now().Before(a.slot.Held().blindUntil) })
	return !blind && a.message.messageID() != "" && (a.u.o.LargeMail == UploadLarge || readRights(a.token).readsMail())
}

// messageID is that of the header, "" if there is not exactly one or it is nothing to look for.
func (m *message) messageID() string {
	id := ""
	for i := range m.header.Fields {
		f := &m.header.Fields[i]
		if !f.Is("Message-ID") {
			continue
		}
		if id != "" {
			return ""
		}
		id = strings.TrimSpace(f.Value())
	}
	if len(id) < 3 || len(id) > 900 || id[0] != '<' || id[len(id)-1] != '>' || mail.Printable(id) != id {
		return ""
	}
	return id
}

// lookUp gives their result to recipients whom an earlier attempt has sent the message to. A fault means that the
// mailbox does not answer, and that nothing was sent.
func (a *attempt) lookUp(ctx context.Context) *fault {
	if a.t.Doubts == 0 || !a.mayLook() {
		return nil
	}
	found, f := a.sentTo(ctx)
	if f != nil {
		return f
	}
	a.deliverFound(a.all(), found)
	return nil
}

// lookOnce looks for a message whose last attempt has brought no answer. It reports whether all of a batch have it.
func (a *attempt) lookOnce(ctx context.Context, batch []int) bool {
	if !a.t.Last || !a.mayLook() || !a.u.pause(ctx, lookAfter) {
		return false
	}
	found, f := a.sentTo(ctx)
	return f == nil && a.deliverFound(batch, found)
}

// deliverFound marks those of a batch whom the message in Sent Items went to as delivered. The others need a message of
// their own, which is possible only where the header names nobody; else the one found counts as another message.
func (a *attempt) deliverFound(batch []int, found map[string]bool) (all bool) {
	var have []int
	for _, i := range batch {
		if found[sentKey(a.t.Recipients[i].To)] {
			have = append(have, i)
		}
	}
	if len(have) < len(batch) && a.shape.named > 0 {
		return false
	}
	for _, i := range have {
		r := &a.results[i]
		r.Class, r.Stage, r.Uncertain = mail.Delivered, mail.StageDot, false
		r.Reply = mail.R(250, "2.0.0", "found in Sent Items of %s: an earlier attempt has sent it", a.mailbox)
	}
	return len(have) == len(batch)
}

// notFound are those of a batch whom lookOnce has not found.
func (a *attempt) notFound(batch []int) []int {
	return slices.DeleteFunc(slices.Clone(batch), func(i int) bool { return a.results[i].Class == mail.Delivered })
}

func sentKey(to mail.Address) string {
	to, _ = to.ASCII()
	return strings.ToLower(to.String())
}

// sentPerson is a recipient as Graph shows it.
type sentPerson struct {
	EmailAddress struct{ Address string }
}

// isBefore reports that what was sent at a time was sent before our message came. Some devices give all their mail one
// Message-ID.
func (a *attempt) isBefore(sent string) bool {
	at, err := time.Parse(time.RFC3339, sent)
	return err == nil && !a.t.Received.IsZero() && at.Before(a.t.Received.Add(-sentSkew))
}

// sentTo asks whom Sent Items shows for the message.
func (a *attempt) sentTo(ctx context.Context) (map[string]bool, *fault) {
	found := map[string]bool{}
	take := func(name string, value json.RawMessage) {
		var items []struct {
			ID                                        string `json:"internetMessageId"`
			Sent                                      string `json:"sentDateTime"`
			ToRecipients, CcRecipients, BccRecipients []sentPerson
		}
		if name != "value" || len(value) > maxSentRead || json.Unmarshal(value, &items) != nil {
			return
		}
		for _, item := range items {
			if item.ID != a.message.messageID() || a.isBefore(item.Sent) {
				continue
			}
			for _, p := range slices.Concat(item.ToRecipients, item.CcRecipients, item.BccRecipients) {
				if to, err := mail.ParseAddress(p.EmailAddress.Address); err == nil {
					found[sentKey(to)] = true
				}
			}
		}
	}
	filter := "internetMessageId eq '" + strings.ReplaceAll(a.message.messageID(), "'", "''") + "'"
	ans, f := a.u.exchange(ctx, a.u.mailboxURL(a.mailbox)+"/mailFolders/sentitems/messages?$top=10&$select="+
		"internetMessageId,sentDateTime,toRecipients,ccRecipients,bccRecipients&$filter="+url.QueryEscape(filter),
		a.token,
		step{method: http.MethodGet, field: take})
	switch {
	case f != nil:
		return nil, f
	case ans.status == http.StatusOK:
		return found, nil
	case ans.status == http.StatusForbidden:
		a.u.Update(func() { a.slot.Held().blindUntil = time.Now().Add(blindFor) })
	case ans.status == http.StatusTooManyRequests || ans.status >= 500:
		f = a.u.refused(ans)
		f.uncertain, f.stage = false, mail.StageMail
		return nil, f
	}
	return nil, nil // not to be learnt: as if there were no Sent Items
}
