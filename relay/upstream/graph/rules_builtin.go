package graph

import (
	"time"

	"postern/mail"
)

const (
	fixFull = "the sending mailbox is full, often with Sent Items: clean it up or give it an archive"
	fixWay  = "a proxy, a firewall or a gateway answers in place of Microsoft: let this machine out to the host " +
		"that is named, port 443, and look at HTTPS_PROXY and proxy"
	fixSuspend  = "Microsoft has blocked the mailbox from sending: see Restricted entities in the Defender portal"
	fixUsed     = "the mailbox has used up what it may send; the mail waits for the window to move on"
	fixNoAccess = "see Conditional Access in the Entra admin center: sign-in logs, of the application or of the " +
		"person, name the policy; exclude the application, or log in anew from where the policy lets one in"
)

// builtinRules are complete: any status but 202 matches one. Microsoft adds codes as it likes, so each kind is known by
// words of its codes and texts too; what says nothing of its kind defers the message and pauses nobody.
var builtinRules = []Rule{
	{Name: "send-as", Codes: []string{"ErrorSendAsDenied"}, Class: mail.AccountFault, Code: 454, Enhanced: "4.7.1",
		Author: true,
		Fix: "give this mailbox the right Send As for the address in From, or let the message's From be the " +
			"mailbox",
		Example: "403 ErrorSendAsDenied The user account which was used to submit this request does not have the " +
			"right to send mail on behalf of the specified sending account., Cannot submit message."},
	{Name: "send-as", Status: "4xx", Like: `SendAs|SendOnBehalf`, Class: mail.AccountFault, Code: 454,
		Enhanced: "4.7.1", Author: true,
		Fix: "give this mailbox the right Send As for the address in From, or let the message's From be the " +
			"mailbox",
		Example: "403 ErrorSendOnBehalfDenied No."},
	{Name: "send-as", Status: "4xx",
		Text: `right to send mail on behalf|(not allowed|not authori[sz]ed|no permission) to send (as|from|on ` +
			`behalf)|SendAsDenied`, Class: mail.AccountFault, Code: 454, Enhanced: "4.7.1", Author: true,
		Fix: "give this mailbox the right Send As for the address in From, or let the message's From be the " +
			"mailbox",
		Example: "403 Forbidden The account does not have the right to send mail on behalf of the specified account."},

	// Who the application or the person is, and what the tenant lets them do.
	{Name: "raop", Status: "4xx", Text: `\[RAOP\]|AppOnly AccessPolicy|application access ?policy`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true,
		Fix: "an application access policy of the tenant keeps the application from this mailbox: in Exchange " +
			"Online PowerShell, Get-ApplicationAccessPolicy shows it, and Test-ApplicationAccessPolicy " +
			"-Identity <mailbox> -AppId <application id> says what it decides; add the mailbox to the policy's " +
			"group, or send from one that is in it. Changes take an hour or more",
		Example: "403 ErrorAccessDenied Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly " +
			"AccessPolicy settings."},
	{Name: "claims", Status: "4xx", Like: `claims`, Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true,
		DropToken: true, Again: true, Fix: fixNoAccess,
		Example: "401 insufficient_claims Continuous access evaluation resulted in challenge with result: " +
			"InteractionRequired and code: LocationConditionEvaluationSatisfied"},
	{Name: "claims", Status: "4xx", Text: `insufficient_claims|claims challenge|conditional access|InteractionRequired`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true, Fix: fixNoAccess,
		Example: "403 Forbidden error=insufficient_claims"},
	{Name: "token", Status: "401", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true,
		Again:   true,
		Fix:     "look at scope and tenant in [upstream.oauth]: the token must be for " + "https://graph.microsoft.com",
		Example: "401 InvalidAuthenticationToken Access token has expired or is not yet valid."},
	{Name: "tenant", Status: "4xx", Like: `Tenant|Organi[sz]ation|Licen[cs]e|Subscription|Provision`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true,
		Fix: "Microsoft finds no Exchange Online for this tenant: check tenant in [upstream.oauth], and that " +
			"the tenant has a licence for Exchange Online; a personal account needs flow device-code or " +
			"authorization-code",
		Example: "400 OrganizationFromTenantGuidNotFound The tenant for tenant guid " +
			"'6731de76-14a6-49ae-97bc-6eba6914391e' does not exist."},
	{Name: "authentication", Status: "4xx",
		Like: `Authenticat|AuthToken|AccessToken|Unauthori[sz]ed|UnknownToken|InvalidToken|ExpiredToken|Credential|` +
			`LogonFailed|Audience|invalid_(token|grant|client)`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true, Again: true,
		Fix: "look at scope and tenant in [upstream.oauth]: the token must be for " +
			"https://graph.microsoft.com, and of the tenant that has the mailbox",
		Example: "400 AuthenticationError Error authenticating with resource"},

	// The mailbox.
	{Name: "no-rest-mailbox", Status: "4xx",
		Like: `^(Error)?Mailbox(Is)?(Not|Inactive|Disabled|Unlicensed|SoftDeleted)|ForRESTAPI$|InactiveMailbox|` +
			`MailboxHostedOn`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.2.1", Login: true,
		Fix: "the mailbox is not in Exchange Online, has no licence, or is inactive; if it is there, write its " +
			"user principal name or its object id in username",
		Example: "404 MailboxNotEnabledForRESTAPI The mailbox is either inactive, soft-deleted, or is hosted " +
			"on-premise."},
	{Name: "throttled", Text: `verdict is Throttle`, Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "403 Forbidden WASCL UserAction verdict is not None. Actual verdict is Throttle."},
	{Name: "daily-quota", Text: `verdict is \w*Quota`, Class: mail.AccountFault, Code: 454, Enhanced: "4.2.3",
		RetryAfter: time.Hour, Quota: true, Fix: fixUsed,
		Example: "403 ErrorAccessDenied WASCL UserAction verdict is not None. Actual verdict is RefuseQuota."},
	{Name: "account-suspended",
		Like:  `Account(Is)?(Suspend|Disable|Block|Lock|Restrict)|SubmissionBlocked|SenderBlocked`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", RetryAfter: time.Hour, Fix: fixSuspend,
		Example: "403 ErrorAccountSuspend Account suspended. Follow the instructions in your Inbox to verify your " +
			"account., Cannot submit message."},
	{Name: "account-suspended", Status: "4xx",
		Text: `verdict is (Suspend|Block|ShowTierUpgrade|Refuse)|account (is |has been |was )?(suspended|disabled|` +
			`blocked|restricted)`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", RetryAfter: time.Hour, Fix: fixSuspend,
		Example: "400 ErrorInternal WASCL UserAction verdict is not None. Actual verdict is Suspend, ShowTierUpgrade"},
	{Name: "daily-quota", Like: `(Daily|Hourly|PerDay|PerHour)\w*(Limit|Quota)|(Submission|Send|Recipient|` +
		`Message)Quota|Exceeded(Message|Submission|Send|Sending|RecipientRate)Limit`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.2.3", RetryAfter: time.Hour, Quota: true, Fix: fixUsed,
		Example: "403 ErrorExceededMessageLimit Cannot send mail. Daily Message/Recipient limit exceeded., Cannot " +
			"submit message."},
	{Name: "daily-quota", Text: `(daily|hourly) (message|recipient|sending|send)\S* limit|message/recipient limit|` +
		`sending quota`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.2.3", RetryAfter: time.Hour, Quota: true, Fix: fixUsed,
		Example: "403 Forbidden Daily sending limit reached"},
	{Name: "mailbox-full", Like: `QuotaExceeded|MailboxFull|InsufficientStorage|insufficientQuota`,
		Class: mail.AccountFault, Code: 452, Enhanced: "4.2.2", RetryAfter: 15 * time.Minute, Fix: fixFull,
		Example: "507 ErrorQuotaExceeded The mailbox has exceeded the maximum mailbox size., Cannot save changes " +
			"made to an item to store."},
	{Name: "mailbox-full", Text: `maximum mailbox size|mailbox is (full|over)|mailbox has exceeded`,
		Class: mail.AccountFault, Code: 452, Enhanced: "4.2.2", RetryAfter: 15 * time.Minute, Fix: fixFull,
		Example: "400 ErrorItemSave The mailbox is full."},
	{Name: "mailbox-full", Status: "507", Class: mail.AccountFault, Code: 452, Enhanced: "4.2.2",
		RetryAfter: 15 * time.Minute, Fix: fixFull,
		Example: "507 - Insufficient Storage"},

	// Not now.
	{Name: "throttled", Status: "429", Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "429 ApplicationThrottled Application is over its MailboxConcurrency limit."},
	{Name: "busy", Like: `Throttl|TooManyRequest|TooManyConcurrent|RateLimit|Concurren|Busy|Overload|ActivityLimit|` +
		`StoreUnavailable|MailboxMove|ConnectionCount|Failover|MailboxInfoStale|ServiceUnavailable|RetryLater`,
		Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "500 CommandConcurrencyLimitReached Too many concurrent commands."},
	{Name: "busy", Status: "503", Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "503 - Service Unavailable"},
	{Name: "bandwidth", Status: "509", Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "509 - Bandwidth Limit Exceeded"},
	{Name: "slow-request", Status: "408", Class: mail.BackPressure, Code: 451, Enhanced: "4.4.2",
		Example: "408 - Request Timeout"},

	// The message.
	{Name: "too-many-recipients", Status: "4xx", Like: `MaxRecipient|TooManyRecipient|RecipientLimit|RecipientCount`,
		Class: mail.MessageFault, Code: 550, Enhanced: "5.5.3",
		Example: "400 ErrorExceededMaxRecipientLimit The maximum number of recipients is exceeded."},
	{Name: "too-big", Status: "413", Class: mail.MessageFault, Code: 552, Enhanced: "5.3.4",
		Example: "413 RequestEntityTooLarge The maximum request length supported is 4MB."},
	{Name: "too-big", Status: "4xx",
		Like:  `(Message|Attachment|Item)Size|SizeLimit|EntityTooLarge|PayloadTooLarge|NestLevelLimit`,
		Class: mail.MessageFault, Code: 552, Enhanced: "5.3.4",
		Example: "400 ErrorMessageSizeExceeded The message exceeds the maximum supported size., Cannot save changes " +
			"made to an item to store."},
	{Name: "too-big", Status: "400", Text: `maximum request length|maximum (supported|allowed|message) size`,
		Class: mail.MessageFault, Code: 552, Enhanced: "5.3.4",
		Example: "400 BadRequest The maximum request length supported is 4MB."},
	// Graph says so, now and then, of messages that have some, a draft that was just made among them.
	{Name: "no-recipients", Status: "400", Text: `contains no recipients`, Class: mail.MessageFault, Code: 550,
		Enhanced: "5.1.3", Repeat: true,
		Example: "400 ErrorInvalidRecipients At least one recipient is not valid., A message can't be sent because " +
			"it contains no recipients."},
	// Graph does not say which one, and takes the message for all or for nobody.
	{Name: "recipients", Status: "400",
		Like:  `InvalidRecipient|RecipientNot|InvalidSmtpAddress|InvalidEmailAddress|UnresolvedRecipient`,
		Class: mail.MessageFault, Code: 550, Enhanced: "5.1.3",
		Example: "400 ErrorInvalidRecipients At least one recipient is not valid."},
	{Name: "recipients", Status: "400", Text: `recipients? (\S+ )?(is|are) (not valid|invalid)`,
		Class: mail.MessageFault, Code: 550, Enhanced: "5.1.3",
		Example: "400 RequestBroker--ParseUri Recipient 'x' is not valid."},
	// Our own encoding is at fault here, and that is temporary by default.
	{Name: "base64", Codes: []string{"ErrorMimeContentInvalidBase64String"}, Class: mail.Deferral, Code: 451,
		Enhanced: "4.3.0",
		Example:  "400 ErrorMimeContentInvalidBase64String Invalid base64 string for MIME content."},
	{Name: "mime", Status: "4xx", Like: `MimeContent|InvalidMime|ContentConversion|InternetMessageHeader`,
		Class: mail.MessageFault, Code: 554, Enhanced: "5.6.0",
		Example: "400 ErrorMimeContentInvalid The MIME content is invalid."},
	{Name: "refused-content", Status: "4xx", Like: `Message(Transmission)?Blocked|Malware|Virus`,
		Class: mail.MessageFault, Code: 554, Enhanced: "5.7.1",
		Example: "403 ErrorMessageBlocked Message blocked."},

	// A web page with these is a firewall's. It says nothing about rights.
	{Name: "firewall", Status: "403", Codes: []string{"<"}, Class: mail.AccountFault, Code: 454, Enhanced: "4.4.1",
		Way: true, Fix: fixWay,
		Example: "403 < Blocked by policy"},
	{Name: "firewall", Status: "405", Codes: []string{"<"}, Class: mail.AccountFault, Code: 454, Enhanced: "4.4.1",
		Way: true, Fix: fixWay,
		Example: "405 < Method not allowed"},
	{Name: "firewall", Status: "451", Codes: []string{"-"}, Class: mail.AccountFault, Code: 454, Enhanced: "4.4.1",
		Way: true, Fix: fixWay,
		Example: "451 - Unavailable For Legal Reasons"},
	{Name: "proxy", Status: "407", Class: mail.AccountFault, Code: 454, Enhanced: "4.4.1", Way: true,
		Fix:     "the proxy wants a login: write it in proxy or HTTPS_PROXY, as http://name:password@host:port",
		Example: "407 - Proxy Authentication Required"},
	{Name: "guest-network", Status: "511", Class: mail.BackPressure, Code: 451, Enhanced: "4.4.1", Way: true,
		Fix:     fixWay,
		Example: "511 - Network Authentication Required"},

	// The permission is inside the token: one that was fetched before the consent is of no use after it.
	{Name: "permission", Status: "4xx",
		Like:  `Denied|Forbidden|Permission|Privilege|Authorization|Impersonat|AccessRestricted|Consent`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true, Right: true,
		Fix:     fixMailSend,
		Example: "403 ErrorAccessDenied Access is denied. Check credentials and try again."},
	{Name: "forbidden", Status: "403", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true,
		DropToken: true, Right: true,
		Fix:     fixMailSend + "; a proxy or Conditional Access may refuse too",
		Example: "403 - Forbidden"},
	{Name: "no-mailbox", Status: "4xx",
		Like: `InvalidUser|UserNotFound|NonExistentMailbox|^(Request_)?ResourceNotFound$|InvalidMailbox|` +
			`MailboxNotFound|NonPrimarySmtpAddress`,
		Class: mail.AccountFault, Code: 454, Enhanced: "4.1.8", Login: true, Fix: fixNoMailbox,
		Example: "404 ErrorInvalidUser The requested user 'scanner@example.com' is invalid."},
	{Name: "item", Status: "404", Like: `Item|Folder|Attachment|Object|Draft|Session`, Class: mail.Deferral, Code: 451,
		Enhanced: "4.3.0",
		Example:  "404 ErrorItemNotFound The specified object was not found in the store."},
	{Name: "not-here", Status: "404", Class: mail.AccountFault, Code: 454, Enhanced: "4.1.8", Login: true,
		Fix:     fixNoMailbox + "; or this is not Graph: look at host",
		Example: "404 - Not Found"},
	{Name: "licence", Status: "402", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0",
		Fix:     "Microsoft wants a licence or a payment for this: see the tenant's billing",
		Example: "402 - Payment Required"},

	// 504 and 500 have been seen for mail that was sent (learn.microsoft.com/answers/questions/2286986 and 5629476).
	{Name: "gateway-timeout", Status: "504", Class: mail.Deferral, Code: 451, Enhanced: "4.4.7", Uncertain: true,
		Example: "504 UnknownError Gateway Timeout"},
	{Name: "server-error", Status: "5xx", Class: mail.Deferral, Code: 451, Enhanced: "4.3.0", Uncertain: true,
		Example: "500 ErrorInternalServerError An internal server error occurred. The operation failed."},
	// 200 has been seen for large messages that were not sent
	// (github.com/microsoftgraph/microsoft-graph-docs/issues/13979).
	{Name: "not-202", Status: "2xx", Class: mail.Deferral, Code: 451, Enhanced: "4.3.0", Uncertain: true,
		Example: "200 - OK"},
	{Name: "redirect", Status: "3xx", Class: mail.AccountFault, Code: 454, Enhanced: "4.3.5", Way: true,
		Fix:     "this is not Graph: look at host, and at proxies between",
		Example: "302 - Found"},

	// 409, 412, 421, 423, 425 and so on are about one request or item.
	{Name: "not-graph", Status: "400", Codes: []string{"-"}, Class: mail.Deferral, Code: 451, Enhanced: "4.3.0",
		Example: "400 - Bad Request"},
	{Name: unknownRule, Class: mail.Deferral, Code: 451, Enhanced: "4.3.0",
		Example: "409 ErrorIrresolvableConflict The send or update operation could not be performed because the " +
			"change key passed in the request does not match the current change key for the item."},
}

const (
	fixMailSend = "give the application Mail.Send for this mailbox (docs/upstreams/microsoft-graph.md); Exchange " +
		"takes up to two hours to notice"
	fixNoMailbox = "Microsoft finds no such mailbox in this tenant: look at username. An alias does not do; the " +
		"user principal name (Entra admin center, Users) or the object id of the user does, where the address is " +
		"not found"
)
