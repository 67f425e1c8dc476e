package replies

import (
	"slices"

	"postern/mail"
)

var (
	beforeMail = []mail.Stage{mail.StageGreeting, mail.StageEHLO, mail.StageTLS, mail.StageAuth}
	fromMail   = []mail.Stage{mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot}
)

// Protocol is the name of rules for answers to commands that we should not have given.
const Protocol = "protocol"

// genericRules hold for every upstream: what the words say, then what the codes say.
var genericRules = slices.Concat(wordRules, codeRules)

// codeRules are complete: any 4yz or 5yz at any stage matches one.
var codeRules = []Rule{
	// RFC 5321 §3.8: 421 means that the service closes the channel, whatever the command was.
	{Name: "closing", Code: "421", Class: mail.BackPressure,
		Example: "421 4.7.0 Try again later, closing connection."},

	// Everything before MAIL is about us, never about a message.
	{Name: "password-transition", Stages: []mail.Stage{mail.StageAuth}, Code: "432", Class: mail.AccountFault,
		Example: "432 4.7.12 A password transition is needed"}, // RFC 4954 §6
	{Name: "not-now", Stages: beforeMail, Code: "4yz", Class: mail.BackPressure,
		Example: "454 4.7.0 Authentication aborted"},
	{Name: "not-you", Stages: beforeMail, Code: "5yz", Class: mail.AccountFault,
		Example: "535 5.7.8 Username and Password not accepted"},

	// The session's own trouble, seen late.
	{Name: "login-required", Stages: fromMail, Code: "530", Class: mail.AccountFault, Login: true,
		Example: "530 5.7.0 Not now"}, // RFC 4954 §6
	{Name: "login-refused", Stages: fromMail, Code: "535", Class: mail.AccountFault,
		Example: "535 5.7.8 Bad credentials"},
	{Name: "encryption-required", Stages: fromMail, Code: "538", Class: mail.AccountFault,
		Example: "538 5.7.11 In clear"},
	// These answer a command that we should not have given, or that the peer does not know: no message is to blame.
	{Name: Protocol, Stages: fromMail, Code: "500", Class: mail.Deferral,
		Example: "500 5.5.1 Command unrecognized: \"BDAT\""},
	{Name: Protocol, Stages: fromMail, Code: "502", Class: mail.Deferral,
		Example: "502 5.5.1 Command not implemented"},
	{Name: Protocol, Stages: fromMail, Code: "503", Class: mail.Deferral,
		Example: "503 5.5.1 Bad sequence of commands"},

	// RFC 5321 §4.5.3.1.10 has 452 for too many recipients.
	{Name: "too-many-recipients", Stages: atRcpt, Code: "452", Enhanced: "-", Class: mail.Deferral, Rest: true,
		Example: "452 Requested action not taken"},

	{Name: "slow-down", Stages: fromMail, Code: "432", Class: mail.BackPressure, Slow: true,
		Example: "432 4.7.0 Wait"},

	{Name: "later", Stages: fromMail, Code: "4yz", Class: mail.Deferral,
		Example: "450 4.2.0 Mailbox unavailable"},
	{Name: "recipient", Stages: atRcpt, Code: "5yz", Class: mail.RecipientFault,
		Example: "550 5.5.0 Requested action not taken: mailbox unavailable"},
	{Name: "too-large", Stages: fromMail, Code: "552", Class: mail.MessageFault,
		Example: "552 Requested mail action aborted"}, // RFC 1870 §6.1
	{Name: "too-large", Stages: fromMail, Code: "5yz", Enhanced: "5.3.4", Class: mail.MessageFault,
		Example: "550 5.3.4 Too much"},
	{Name: "address", Stages: fromMail, Code: "5yz", Enhanced: "5.1.*", Class: mail.MessageFault,
		Example: "553 5.1.8 Domain of sender address does not exist"},
	{Name: "content", Stages: fromMail, Code: "5yz", Enhanced: "5.6.*", Class: mail.MessageFault,
		Example: "550 5.6.0 Lone CR or LF in headers"},
	{Name: "policy", Stages: fromMail, Code: "5yz", Enhanced: "5.7.*", Class: mail.MessageFault,
		Example: "554 5.7.1 Message contains spam"},
	{Name: "spam", Stages: fromMail, Code: "5yz", Enhanced: "-",
		Text: `\b(spam|virus|blocked|blacklist|blocklist|policy)`, Class: mail.MessageFault,
		Example: "554 Message rejected as spam"},
	// Nobody knows this one: to hold the mail would keep it from its sender for days, and he can act on a report.
	{Name: mail.RuleNone, Stages: fromMail, Code: "5yz", Class: mail.MessageFault,
		Example: "571 Delivery refused"},
}
