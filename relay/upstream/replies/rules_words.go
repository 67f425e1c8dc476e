package replies

import (
	"slices"
	"strings"
	"time"

	"postern/mail"
)

// The rules by words hold at every provider, for the text is more specific than the code: "too fast" is never the fault
// of a recipient. They are searched in the words of a reply (see Sample) and in this order: what repeats words of the
// message first; then what speaks of a recipient, so that "over quota" and "disabled" do not swallow what is his; then
// rates and quotas, which pass; what a 4yz asks for; what is wrong with one message; our address and name; senders; the
// account; the login; "later" with a 5yz.
//
// In patterns [^.;]* is "within the sentence". A pattern that grows beyond the words of one subject is two rules.
var wordRules = slices.Concat(
	exchangeWords, quotedWords, recipientWords, quotaWords, notNowWords, messageWords, hostWords, senderWords,
	accountWords, loginWords, laterWords,
)

// either joins alternatives.
func either(patterns ...string) string { return "(?:" + strings.Join(patterns, "|") + ")" }

// near is a and b in one sentence, in any order.
func near(a, b string) string { return either(a+`[^.;]*`+b, b+`[^.;]*`+a) }

var (
	// toRecipient are the stages at which a recipient can be the subject.
	toRecipient = []mail.Stage{mail.StageRcpt, mail.StageData, mail.StageDot}
	atMail      = []mail.Stage{mail.StageMail}
	atRcpt      = []mail.Stage{mail.StageRcpt}
	atContent   = []mail.Stage{mail.StageData, mail.StageDot}
)

// later is how a reply says that it is not for ever.
var later = either(
	`\b(?:try|retry|send|sent|resend|resubmit|submit|attempt)\b[^.;]*\b(?:again later|again in|again after|later|in `+
		`\d|after)\b`,
	`\btry again\b(?: ?$| ?[.;(-])`,
	`\blater\b`,
	`\bretry\b`,
	`\btemporar\w*`, `\btempor.{1,2}r\w*`, `\btransient\b`,
	`\bcome back\b`,
	`\bin a (?:few|while)\b`,
	`\bgr[ae]y-?list\w*`,
	`\b(?:server|service|system|we|host)(?: is| are)?(?: currently| too)? (?:busy|overload\w*|unavailable|not `+
		`available)`,
	`\bmaintenance\b`,
	`\binternal (?:server |system )?(?:error|failure)`, `\b(?:server|system|software|local) (?:error|failure)`,
	`\b(?:config|configuration) error`, `\bmisconfigur\w*`, `queue file write error`,
	`\b(?:insufficient|out of|low on) (?:system )?(?:resources|memory|disk|storage)`,
	`\btimed? ?out\b`,
	`\bsp.{1,2}ter\b`, `\bplus tard\b`, `\bm.{1,2}s tarde\b`, `\bpi.{1,2} tardi\b`, `\berneut\b`,
	`\bvor.{1,2}bergehend`,
)

// notNowWords: what a 4yz asks for is believed, unless it was told before what it is about.
var notNowWords = []Rule{
	{Name: "closing", Code: "421", Text: later, Class: mail.BackPressure,
		Example: "421 4.7.0 Try again later, closing connection."},
	{Name: "not-now", Stages: beforeMail, Code: "4yz", Text: later, Class: mail.BackPressure,
		Example: "454 4.7.0 Cannot authenticate due to temporary system problem. Try again later."},
	{Name: "system-busy", Stages: atMail, Code: "4yz", Enhanced: "4.3.2", Class: mail.BackPressure,
		Example: "451 4.3.2 System not accepting network messages"},
	{Name: "system-full", Stages: atMail, Code: "452", Enhanced: "4.3.1", Class: mail.BackPressure,
		Example: "452 4.3.1 Insufficient system storage"},
	{Name: "congested", Stages: atMail, Code: "4yz", Enhanced: "4.4.5", Class: mail.BackPressure,
		Example: "451 4.4.5 System congestion, try again later"},
	{Name: "later", Stages: fromMail, Code: "4yz", Class: mail.Deferral,
		Text:    either(later, `unverified address`, `undeliverable address`),
		Example: "450 4.7.1 Please try again in 300 seconds"},
}

// laterWords: a 5yz that says itself that it passes.
var laterWords = []Rule{
	{Name: "not-now", Stages: beforeMail, Code: "5yz", Text: later, Class: mail.BackPressure,
		Example: "554 5.3.2 Service temporarily unavailable, try again later"},
	{Name: "later", Stages: fromMail, Code: "5yz", Text: later, Class: mail.Deferral,
		Example: "554 Transaction failed[Service Temporarily Unavailable. Please try after a few minutes.]"},
}

// exchangeWords are Exchange's, wherever it stands.
var exchangeWords = []Rule{
	{Name: "over-quota", Stages: fromMail, Text: `SubmissionQuotaExceeded|RefuseQuota`,
		Class: mail.BackPressure, Quota: 24 * time.Hour, RetryAfter: time.Hour,
		Example: "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message"},
	{Name: "own-mailbox-full", Stages: fromMail, Text: `STOREDRV.Submission\S*:QuotaExceeded`,
		Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Example: "554 5.2.2 mailbox full; " +
			"STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded"},
	{Name: "account-stopped", Stages: fromMail, Text: `WASCL UserAction[^!]*(?:Suspend|ShowTierUpgrade)`,
		Class: mail.AccountFault, RetryAfter: time.Hour,
		Example: "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is Suspend."},
	{Name: "sender-not-owned", Stages: fromMail, Text: `SendAsDenied`,
		Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: time.Hour,
		Example: "554 5.2.252 SendAsDenied; relay@example.com not allowed to send as boss@example.com"},
	{Name: "sender-not-owned", Stages: fromMail, Code: "5yz", Enhanced: "5.7.60",
		Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: time.Hour,
		Example: "550 5.7.60 SMTP; Client does not have permissions to send as this sender"},
	{Name: "sender-quota", Stages: fromMail, Code: "5yz", Enhanced: "5.7.236",
		Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: time.Hour,
		Example: "550 5.7.236 Your message can't be sent because your onmicrosoft.com domain has reached its limit " +
			"for today"},
	{Name: "too-large", Stages: fromMail, Code: "5yz", Text: `RESOLVER.RST.\w+SizeLimit`, Class: mail.MessageFault,
		Example: "550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient"},
	{Name: "recipient-restricted", Stages: toRecipient, Code: "5yz", Text: `RESOLVER.(?:RST|ADR)`,
		Class:   mail.RecipientFault,
		Example: "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required"},
}

// quotedWords repeat what a sender calls things. A subject or a file named "rate limit exceeded" is no limit.
var quotedWords = []Rule{
	{Name: "content", Stages: atContent, Code: "5yz", Class: mail.MessageFault,
		Text: either(`\bbanned: `,
			`\b(?:attachment|attached file|file ?name|file|subject)s?(?: named?| called| line)?(?: is|:)? ?["'“«]`),
		Example: `554 5.7.1 Blocked attachment "rate limit exceeded.exe"`},
}

// messageWords are about one message. SPF's texts name addresses and senders, so they stand before those.
var messageWords = []Rule{
	{Name: "message-authentication", Stages: fromMail, Code: "5yz", Class: mail.MessageFault,
		Text: either(`\b(?:spf|dkim|dmarc|arc)\b`, `required authentication level`, `sender is unauthenticated`,
			`unauthenticated (?:mail|e-?mail|message)`,
			`\b(?:message|mail|e-?mail) (?:\w+ )?(?:fail(?:s|ed|ing)?|does not pass|did not pass|lacks) (?:\w+ `+
				`)?authentication`),
		Example: "550-5.7.26 Unauthenticated email from example.com is not accepted due to domain's\r\n550 5.7.26 " +
			"DMARC policy."},
	{Name: "sender-not-owned", Stages: atContent, Code: "5yz", Class: mail.AccountFault, Scope: ScopeSender,
		RetryAfter: 15 * time.Minute,
		Text:       `\bfrom\b[^.;]*\b(?:must|should|has to|does not|doesn't) match`,
		Example:    "550 5.1.0 sender rejected: header From must match authenticated address"},
	{Name: "content", Stages: atContent, Code: "5yz", Class: mail.MessageFault,
		Text: either(`\b(?:virus|malware|phishing|trojan|banned:)`,
			near(`\b(?:urls?|uris?|links?|attachments?|attached|file|headers?|subject|body)\b`,
				either(`listed`, `block`, `black`, `reject`, `refus`, `banned`, `prohibited`, `found`, `detected`,
					`not allowed`, `invalid`))),
		Example: "550 5.7.1 Message contains a URL listed on a blocklist"},
}
