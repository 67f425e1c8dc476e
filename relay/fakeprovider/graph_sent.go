package fakeprovider

import (
	"net/http"
	netmail "net/mail"
	"strings"
)

// sentItems answers the one question about Sent Items that is understood: $filter=internetMessageId eq '<id>'.
func (g *Graph) sentItems(r *http.Request, c call) *graphReply {
	filter := r.URL.Query().Get("$filter")
	id, ok := strings.CutPrefix(filter, "internetMessageId eq '")
	id, closed := strings.CutSuffix(id, "'")
	if !ok || !closed || strings.Contains(strings.ReplaceAll(id, "''", ""), "'") {
		return refuse(400, "BadRequest", "Invalid filter clause")
	}
	id = strings.ReplaceAll(id, "''", "'")
	items := []map[string]any{}
	for _, a := range g.Arrivals() {
		if a.Mailbox == c.mailbox && a.messageID() == id && !g.o.Now().Before(a.At.Add(g.o.SentLate)) {
			items = append(items, a.sentItem(id))
		}
	}
	return &graphReply{status: http.StatusOK, body: map[string]any{"@odata.context": "x", "value": items}}
}

func (a *GraphArrival) messageID() string {
	if a.Draft != nil {
		return a.Draft.InternetMessageID
	}
	m, err := netmail.ReadMessage(strings.NewReader(string(a.MIME)))
	if err != nil {
		return ""
	}
	return m.Header.Get("Message-ID")
}

// sentItem shows all recipients as To: which field they were in makes no difference to who got it.
func (a *GraphArrival) sentItem(id string) map[string]any {
	people := []map[string]any{}
	for _, to := range a.Recipients {
		people = append(people, map[string]any{"emailAddress": map[string]string{"name": to, "address": to}})
	}
	return map[string]any{"internetMessageId": id, "sentDateTime": a.At.UTC().Format("2006-01-02T15:04:05Z"),
		"toRecipients": people, "ccRecipients": []any{}, "bccRecipients": []any{}}
}
