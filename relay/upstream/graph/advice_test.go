package graph

import (
	"context"
	"strings"
	"testing"

	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

// What to do about a refusal depends on whose token it is.
func TestAdviceForWhomTheTokenIsOf(t *testing.T) {
	denied := func(string, string) fakeprovider.Access { return fakeprovider.AccessDenied }
	const shared = `{"scp":"Mail.Send Mail.Send.Shared User.Read","upn":"ann@example.com"}`
	for name, c := range map[string]struct {
		claims    string
		delegated bool
		drafts    bool // the right to make drafts is what is refused
		says, not string
	}{
		"application, by roles of Exchange": {`{"roles":[]}`, false, false, "New-ManagementRoleAssignment",
			"upstream login"},
		"application, opaque": {"", false, false, "New-ServicePrincipal", "upstream login"},
		"application with the permission": {`{"roles":["Mail.Send"]}`, false, false, "Get-ApplicationAccessPolicy",
			"upstream login"},
		"person, too little": {`{"scp":"User.Read","upn":"office@example.com"}`, true, false,
			"covers User.Read, and Mail.Send is needed", "New-ServicePrincipal"},
		"person, at another mailbox": {`{"scp":"Mail.Send","upn":"ann@example.com"}`, true, false,
			"Mail.Send.Shared is needed", "New-ServicePrincipal"},
		"person, without Send As": {shared, true, false, "Add-RecipientPermission", "New-ServicePrincipal"},
		"person, opaque":          {"", true, false, "postern upstream login graph", "New-ServicePrincipal"},
		"drafts, application": {`{"roles":["Mail.Send"]}`, false, true,
			`-Role "Application Mail.ReadWrite"`, "upstream login"},
		"drafts, person": {`{"scp":"Mail.Send","upn":"office@example.com"}`, true, true,
			"covers Mail.Send, and Mail.ReadWrite is needed", "Application Mail.ReadWrite"},
		"drafts, person at another mailbox": {shared, true, true, "Mail.ReadWrite.Shared is needed",
			"Application Mail.ReadWrite"},
	} {
		t.Run(name, func(t *testing.T) {
			o := fakeprovider.GraphOptions{Token: denied}
			if c.drafts {
				o = fakeprovider.GraphOptions{ReadWrite: denied}
			}
			fake := fakeprovider.NewGraph(o)
			u, _ := uploading(t, fake, func(o *Options) {
				o.Delegated = c.delegated
				if c.claims != "" {
					o.Token = func(context.Context, string) (string, error) { return jwt(c.claims), nil }
				}
			})
			steps := u.TestSenders(t.Context(), upstream.Trial{})
			last := steps[len(steps)-1]
			if last.OK || !strings.Contains(last.Cause, c.says) || strings.Contains(last.Cause, c.not) {
				t.Errorf("%s: %s", last.Name, last.Cause)
			}
			if strings.Contains(last.Reply.Text, byPerson) != c.delegated {
				t.Errorf("the reply is %s", last.Reply)
			}
			if !c.drafts {
				return
			}
			r := only(t, send(t, u, largeMail(t, "", []string{"a@example.org"}, textPart("text/plain", "hello"),
				file8("application/pdf", "scan.pdf", octets(3_000_001)))))
			if !strings.Contains(r.Note, c.says) || strings.Contains(r.Note, c.not) {
				t.Errorf("the trace says %s", r.Note)
			}
		})
	}
}

// The test says whose token it is and what it is good for.
func TestTestTellsTheRights(t *testing.T) {
	u := withToken(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}),
		`{"scp":"Mail.Send","preferred_username":"ann@example.com"}`, nil)
	for _, s := range u.TestSenders(t.Context(), upstream.Trial{}) {
		if s.Name == "token" && (!s.OK || !strings.Contains(s.Seen,
			"ann@example.com, who has consented to Mail.Send")) {
			t.Errorf("%+v", s)
		}
	}
}
