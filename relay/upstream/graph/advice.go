package graph

import (
	"slices"
	"strings"

	"postern/mail"
)

// adviser tells what to do about a fault, for whom the token is of: an application gets its rights from Entra or from
// Exchange's roles, a person consents and has rights at mailboxes.
type adviser struct {
	upstream  string // by its name
	delegated bool   // the token is of a person who has logged in
	mailbox   string
	rights    rights // of the token
}

func (u *Upstream) adviceFor(rule *Rule, mailbox, token string) string {
	return adviser{u.o.Name, u.o.Delegated, mailbox, readRights(token)}.about(rule)
}

// about is what to do about a rule: rule.Fix where nothing better is known.
func (a adviser) about(rule *Rule) string {
	switch {
	case rule == nil:
		return ""
	case rule.Name == noReadWrite.Name:
		return a.forDrafts()
	case rule.Name == "send-as" && a.delegated:
		return a.forSendAs()
	case !rule.Right:
		return rule.Fix
	case a.delegated:
		return a.forPerson("Mail.Send", "Mail.Send.Shared")
	case a.rights.has("Mail.Send"):
		return "the application has Mail.Send, so a policy of Exchange keeps it from this mailbox: in Exchange " +
			"Online PowerShell, Get-ApplicationAccessPolicy, and " +
			"Test-ServicePrincipalAuthorization -Identity <application id> -Resource " + mail.Printable(a.mailbox)
	}
	return `give the application Mail.Send for this mailbox: in Exchange Online PowerShell, New-ServicePrincipal ` +
		`and New-ManagementRoleAssignment -App <application id> ` +
		`-Role "Application Mail.Send" -CustomResourceScope <scope> (docs/upstreams/microsoft-graph.md); Exchange ` +
		`takes up to two hours to notice. A delegated permission is of no use to ` +
		`flow client-credentials`
}

func (a adviser) login() string { return "run: postern upstream login " + mail.Printable(a.upstream) }

// forPerson names what the consent lacks, or what the person lacks at the mailbox.
func (a adviser) forPerson(own, shared string) string {
	r, who, others := a.rights, "the person who has logged in", false
	if r.person != "" {
		who, others = r.person, !strings.EqualFold(r.person, a.mailbox)
	}
	need := own
	if others {
		need = shared
	}
	switch {
	case r.known && !r.has(own, shared) || r.known && others && !r.has(shared):
		return "the consent of " + who + " covers " + listed(r.granted) + ", and " + need +
			" is needed: in App registrations, API permissions, add the delegated permission " + need +
			" of Microsoft Graph (have an admin consent where people may not), leave scopes out of " +
			"[upstream.oauth], and " + a.login()
	case others:
		return who + " has logged in, and may not use the mailbox " + mail.Printable(a.mailbox) + ": give " + who +
			" Send As for it (Add-RecipientPermission), and Full Access for large mail (Add-MailboxPermission), or " +
			"log in as the mailbox itself; " + a.login()
	}
	return "look at the delegated permission " + own + " of the application in App registrations, API permissions, " +
		"and then " + a.login() + "; an application permission is of no use to a login of a person, and Conditional " +
		"Access may refuse too"
}

func (a adviser) forSendAs() string {
	fix := "give the person who has logged in, or the mailbox, Send As for the address in From, or let the " +
		"message's From be the mailbox"
	if a.rights.known && !a.rights.has("Mail.Send.Shared") {
		fix += "; the consent needs Mail.Send.Shared for that too: " + a.login()
	}
	return fix
}

// forDrafts is about Mail.ReadWrite.
func (a adviser) forDrafts() string {
	if a.delegated {
		return `large_mail = "upload" makes drafts: ` + a.forPerson("Mail.ReadWrite", "Mail.ReadWrite.Shared") +
			". Smaller mail is not affected"
	}
	return noReadWrite.Fix
}

func listed(granted []string) string {
	if len(granted) == 0 {
		return "nothing"
	}
	granted = slices.Clone(granted[:min(len(granted), 10)])
	return mail.Cut(mail.Printable(strings.Join(granted, ", ")), 200)
}

// describe tells whose token it is, for people.
func (r rights) describe() string {
	switch {
	case !r.known:
		return ""
	case r.delegated && r.person != "":
		return " of " + r.person + ", who has consented to " + listed(r.granted)
	case r.delegated:
		return " of a person, who has consented to " + listed(r.granted)
	case len(r.granted) > 0:
		return " of the application, which has " + listed(r.granted) + " for the whole tenant"
	}
	return " of the application, whose rights are roles of Exchange's"
}
