package operate

// The operations. What only looks is not kept in the audit, but for content.
var (
	SeeStatus     = Operation{Name: "status", Role: Viewer, Scope: ScopeRead}
	SeeQueue      = Operation{Name: "queue list", Role: Viewer, Scope: ScopeRead}
	SeeTrace      = Operation{Name: "trace", Role: Viewer, Scope: ScopeRead}
	SeeStatistics = Operation{Name: "stats", Role: Viewer, Scope: ScopeRead}
	SeeAccounts   = Operation{Name: "user list", Role: Viewer, Scope: ScopeRead}
	SeeKeys       = Operation{Name: "dkim list", Role: Viewer, Scope: ScopeRead}
	SeeAlerts     = Operation{Name: "alert list", Role: Viewer, Scope: ScopeRead}
	SeeDomains    = Operation{Name: "dns list", Role: Viewer, Scope: ScopeRead}
	SeeDoctor     = Operation{Name: "doctor last", Role: Viewer, Scope: ScopeRead}
	SeeHeaders    = Operation{Name: "queue headers", Role: Helpdesk, Scope: ScopeQueue, Audit: true}
	SeeContent    = Operation{Name: "queue content", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}

	ReleaseMessages = Operation{Name: "queue release", Role: Helpdesk, Scope: ScopeQueue, Audit: true, Staged: true}
	RetryMessages   = Operation{Name: "queue retry", Role: Helpdesk, Scope: ScopeQueue, Audit: true, Staged: true}
	ResendMessages  = Operation{Name: "queue resend", Role: Operator, Scope: ScopeQueue, Audit: true, Staged: true}
	HoldMessages    = Operation{Name: "queue hold", Role: Operator, Scope: ScopeQueue, Audit: true, Staged: true}
	BounceMessages  = Operation{Name: "queue bounce", Role: Operator, Scope: ScopeQueue, Audit: true, Staged: true}
	DeleteMessages  = Operation{Name: "queue delete", Role: Operator, Scope: ScopeQueue, Audit: true, Staged: true}

	AddAccount     = Operation{Name: "user add", Role: Operator, Scope: ScopeAccounts, Audit: true}
	ImportAccounts = Operation{Name: "user import", Role: Operator, Scope: ScopeAccounts, Audit: true}
	EditAccount    = Operation{Name: "user set", Role: Operator, Scope: ScopeAccounts, Audit: true}
	NewPassword    = Operation{Name: "user password", Role: Operator, Scope: ScopeAccounts, Audit: true}
	LockAccount    = Operation{Name: "user lock", Role: Operator, Scope: ScopeAccounts, Audit: true}
	Unlock         = Operation{Name: "user unlock", Role: Operator, Scope: ScopeAccounts, Audit: true, Staged: true}
	LearnDevices   = Operation{Name: "device learn", Role: Admin, Scope: ScopeAdmin, Audit: true}
	AcceptDevice   = Operation{Name: "device accept", Role: Operator, Scope: ScopeAccounts, Audit: true}
	ForgetDevice   = Operation{Name: "device forget", Role: Operator, Scope: ScopeAccounts, Audit: true}
	RemoveAccount  = Operation{Name: "user remove", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}

	SeeAppPasswords = Operation{Name: "app-password list", Role: Viewer, Scope: ScopeRead, Own: true}
	AddAppPassword  = Operation{Name: "app-password add", Role: Operator, Scope: ScopeAccounts, Audit: true,
		Own: true}
	RevokeAppPassword = Operation{Name: "app-password revoke", Role: Operator, Scope: ScopeAccounts, Audit: true,
		Own: true}
	// EnrolPerson is the first login of somebody to the page of [self_service], who does it by that.
	EnrolPerson  = Operation{Name: "app-password enrol", Role: Admin, Scope: ScopeAdmin, Audit: true, Own: true}
	ReleaseLogin = Operation{Name: "app-password forget", Role: Admin, Scope: ScopeAdmin, Audit: true}

	// These ask servers of others, and so are more than looking.
	Examine      = Operation{Name: "doctor", Role: Helpdesk, Scope: ScopeAdmin, Audit: true, Staged: true}
	LookAtDomain = Operation{Name: "dns", Role: Helpdesk, Scope: ScopeAdmin, Audit: true, Staged: true}

	AddKeys    = Operation{Name: "dkim add", Role: Admin, Scope: ScopeAdmin, Audit: true}
	RotateKeys = Operation{Name: "dkim rotate", Role: Admin, Scope: ScopeAdmin, Audit: true}
	RetireKey  = Operation{Name: "dkim retire", Role: Admin, Scope: ScopeAdmin, Audit: true}
	RemoveKey  = Operation{Name: "dkim remove", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}
	CheckKeys  = Operation{Name: "dkim check", Role: Operator, Scope: ScopeAdmin, Audit: true, Staged: true}

	ReindexTrace = Operation{Name: "trace reindex", Role: Admin, Scope: ScopeAdmin, Audit: true}
	ForgetPerson = Operation{Name: "trace forget", Role: Admin, Scope: ScopeAdmin,
		Audit: true, Staged: true, Strong: true}
	TestAlerts = Operation{Name: "alert test", Role: Operator, Scope: ScopeAdmin, Audit: true, Staged: true}
)

// Operations on who may use the console and the API.
var (
	ListConsoleUsers = Operation{Name: "console list", Role: Admin, Scope: ScopeAdmin}
	InviteUser       = Operation{Name: "console invite", Role: Admin, Scope: ScopeAdmin,
		Audit: true, Staged: true, Strong: true}
	ResetUser = Operation{Name: "console reset", Role: Admin, Scope: ScopeAdmin,
		Audit: true, Staged: true, Strong: true}
	ChangeRole  = Operation{Name: "console role", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}
	DisableUser = Operation{Name: "console disable", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}
	RemoveUser  = Operation{Name: "console remove", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}
	ListTokens  = Operation{Name: "token list", Role: Admin, Scope: ScopeAdmin}
	AddToken    = Operation{Name: "token add", Role: Admin, Scope: ScopeAdmin, Audit: true, Strong: true}
	RevokeToken = Operation{Name: "token revoke", Role: Admin, Scope: ScopeAdmin, Audit: true}
	SeeAudit    = Operation{Name: "audit", Role: Operator, Scope: ScopeAdmin}
)

// All lists every operation.
var All = []Operation{
	SeeStatus, SeeQueue, SeeTrace, SeeAccounts, SeeKeys, SeeAlerts, SeeDomains, LookAtDomain, SeeDoctor, Examine,
	SeeHeaders, SeeContent, SeeSettings,
	ReleaseMessages, RetryMessages, ResendMessages, HoldMessages, BounceMessages, DeleteMessages,
	AddAccount, ImportAccounts, EditAccount, NewPassword, LockAccount, Unlock, RemoveAccount, LearnDevices,
	AcceptDevice, ForgetDevice,
	AddKeys, RotateKeys, RetireKey, RemoveKey, CheckKeys, ReindexTrace, ForgetPerson, TestAlerts, SeeStatistics,
	ListConsoleUsers, InviteUser, ResetUser, ChangeRole, DisableUser, RemoveUser, ListTokens, AddToken, RevokeToken,
	SeeAudit,
	SeeCertificates, RenewCertificate, CertificateRecords,
	SeeAppPasswords, AddAppPassword, RevokeAppPassword, EnrolPerson, ReleaseLogin,
	SeeNodes, DrainNode, UndrainNode,
	MakeBackup, RestoreBackup,
}
