package console

// deeds are what the operations of the audit are called, by their names on the command line.
var deeds = map[string]key{
	"console own password":       "change one's own password",
	"console own authenticator":  "set up one's own authenticator",
	"console own passkey add":    "add a passkey",
	"console own passkey name":   "name a passkey",
	"console own passkey remove": "remove a passkey",
	"console own sessions end":   "end one's own sessions",
	"console second factor":      "give the second factor again",
	"alert test":                 "send a test alert",
	"app-password add":           "make an app password",
	"app-password enrol":         "log in to the page of app passwords for the first time",
	"app-password forget":        "forget who has a login by single sign-on",
	"app-password revoke":        "revoke an app password",
	"backup":                     "make a backup",
	"cert dns":                   "show DNS records of a certificate",
	"cert renew":                 "renew a certificate",
	"console accept":             "accept an invitation",
	"console disable":            "switch a console user off",
	"console enable":             "switch a console user on",
	"console invite":             "invite a console user",
	"console login":              "sign in to the console",
	"console logout":             "sign out of the console",
	"console remove":             "remove a console user",
	"console reset":              "reset a console user's ways in",
	"console role":               "change a console user's role",
	"device accept":              "accept a device that was learnt",
	"device forget":              "forget a device that was learnt",
	"device learn":               "learn devices",
	"dkim add":                   "make DKIM keys",
	"dkim check":                 "look for records of DKIM keys",
	"dkim remove":                "remove a DKIM key",
	"dkim retire":                "retire a DKIM key",
	"dkim rotate":                "replace DKIM keys",
	"dns":                        "look at the DNS of a domain",
	"doctor":                     "let the doctor examine",
	"node drain":                 "drain a node",
	"node undrain":               "undo the draining of a node",
	"queue bounce":               "return messages to their senders",
	"queue content":              "read a message",
	"queue delete":               "delete messages",
	"queue headers":              "read header fields",
	"queue hold":                 "hold messages",
	"queue release":              "release messages",
	"queue resend":               "try failed recipients again",
	"queue retry":                "try messages now",
	"restore":                    "bring back a backup",
	"token add":                  "make an API token",
	"token revoke":               "withdraw an API token",
	"trace forget":               "forget a person",
	"trace reindex":              "make the search index anew",
	"user add":                   "add a login",
	"user import":                "import a table of logins",
	"user lock":                  "lock a login",
	"user password":              "make a new password for a login",
	"user remove":                "remove a login",
	"user set":                   "change a login",
	"user unlock":                "unlock a login",
}

// deed is what an operation is called; its name where it has no word.
func (w *words) deed(operation string) string {
	if k, ok := deeds[operation]; ok {
		return w.t(k)
	}
	return plain(60, operation)
}
