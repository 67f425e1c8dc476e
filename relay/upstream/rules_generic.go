package upstream

import (
	"time"

	"postern/mail"
)

var (
	beforeMail = []mail.Stage{mail.StageGreeting, mail.StageEHLO, mail.StageTLS, mail.StageAuth}
	fromMail   = []mail.Stage{mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot}
)

// genericRules hold for every upstream. They are complete: any 4yz or 5yz at any stage matches one.
var genericRules = []Rule{
	{Name: "too-many-connections", Code: "421", Text: `too many (concurrent|simultaneous|open)? ?(smtp )?(connections|sessions)|(concurrent|simultaneous) connections? limit`, Class: mail.BackPressure, Slow: true,
		Example: "421 4.7.0 Too many concurrent SMTP connections; please try again later"},
	// RFC 5321 §3.8: 421 means that the service closes the channel, whatever the command was.
	{Name: "closing", Code: "421", Class: mail.BackPressure,
		Example: "421 4.7.0 Try again later, closing connection."},

	// Everything before MAIL is about us, never about a message.
	{Name: "password-transition", Stages: []mail.Stage{mail.StageAuth}, Code: "432", Class: mail.AccountFault,
		Example: "432 4.7.12 A password transition is needed"}, // RFC 4954 §6
	{Name: "not-now", Stages: beforeMail, Code: "4yz", Class: mail.BackPressure,
		Example: "454 4.7.0 Temporary authentication failure"},
	{Name: "not-you", Stages: beforeMail, Code: "5yz", Class: mail.AccountFault,
		Example: "535 5.7.8 Username and Password not accepted"},

	// The session's own trouble, seen late.
	{Name: "login-required", Stages: fromMail, Code: "530", Class: mail.AccountFault, Login: true,
		Example: "530 5.7.0 Authentication required"}, // RFC 4954 §6
	{Name: "login-refused", Stages: fromMail, Code: "535", Class: mail.AccountFault,
		Example: "535 5.7.8 Authentication credentials invalid"},
	{Name: "encryption-required", Stages: fromMail, Code: "538", Class: mail.AccountFault,
		Example: "538 5.7.11 Encryption required for requested authentication mechanism"},
	// These answer a command that we should not have given, or that the peer does not know: no message is to blame.
	{Name: "protocol", Stages: fromMail, Code: "500", Class: mail.Deferral,
		Example: "500 5.5.1 Command unrecognized: \"BDAT\""},
	{Name: "protocol", Stages: fromMail, Code: "502", Class: mail.Deferral,
		Example: "502 5.5.1 Command not implemented"},
	{Name: "protocol", Stages: fromMail, Code: "503", Class: mail.Deferral,
		Example: "503 5.5.1 Bad sequence of commands"},

	// Too many recipients is no verdict on any of them. RFC 5321 §4.5.3.1.10 has 452, and 552 from of old.
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Code: "4yz", Enhanced: "4.5.3", Class: mail.Deferral, Rest: true,
		Example: "452 4.5.3 Error: too many recipients"},
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Code: "5yz", Enhanced: "5.5.3", Class: mail.Deferral, Rest: true,
		Example: "550 5.5.3 Too many recipients"},
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Text: `too many (recipients|rcpts)|recipient limit`, Class: mail.Deferral, Rest: true,
		Example: "552 too many recipients"},
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Code: "452", Enhanced: "-", Class: mail.Deferral, Rest: true,
		Example: "452 Requested action not taken"},

	// The whole service asks for patience. A number of connections that is too large is not mended by waiting alone.
	{Name: "too-many-connections", Stages: fromMail, Code: "4yz", Text: `too many (concurrent|simultaneous|open)? ?(smtp )?(connections|sessions)|(concurrent|simultaneous) connections? limit`, Class: mail.BackPressure, Slow: true,
		Example: "450 4.7.0 Too many concurrent connections from your host"},
	{Name: "slow-down", Stages: fromMail, Code: "432", Class: mail.BackPressure, Slow: true,
		Example: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"},
	{Name: "system-busy", Stages: []mail.Stage{mail.StageMail}, Code: "4yz", Enhanced: "4.3.2", Class: mail.BackPressure,
		Example: "451 4.3.2 System not accepting network messages"},
	{Name: "system-full", Stages: []mail.Stage{mail.StageMail}, Code: "452", Enhanced: "4.3.1", Class: mail.BackPressure,
		Example: "452 4.3.1 Insufficient system storage"},
	{Name: "congested", Stages: []mail.Stage{mail.StageMail}, Code: "4yz", Enhanced: "4.4.5", Class: mail.BackPressure,
		Example: "451 4.4.5 System congestion, try again later"},

	{Name: "retry-after", Stages: fromMail, Code: "4yz", Text: `(try|retry|send)( \w+)? (again )?(in|after) (?P<seconds>\d+) ?s(ec(ond)?s?)?\b`, Class: mail.Deferral,
		Example: "450 4.7.1 Greylisted, please try again in 300 seconds"},
	{Name: "retry-after", Stages: fromMail, Code: "4yz", Text: `(try|retry|send)( \w+)? (again )?(in|after) (?P<minutes>\d+) ?m(in(ute)?s?)?\b`, Class: mail.Deferral,
		Example: "451 4.7.1 Please try again in 15 minutes"},
	{Name: "later", Stages: fromMail, Code: "4yz", Class: mail.Deferral,
		Example: "450 4.2.0 Greylisted, see http://postgrey.example.org/"},
	// Postfix's reject_sender_login_mismatch, at RCPT as a rule: no recipient is to blame.
	{Name: "sender-not-owned", Stages: fromMail, Code: "55z", Text: `sender address rejected: not (owned by|logged in)`, Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: 15 * time.Minute,
		Example: "553 5.7.1 <boss@example.com>: Sender address rejected: not owned by user relay@example.com"},
	{Name: "recipient", Stages: []mail.Stage{mail.StageRcpt}, Code: "5yz", Class: mail.RecipientFault,
		Example: "550 5.1.1 User unknown"},
	{Name: "too-large", Stages: fromMail, Code: "552", Class: mail.MessageFault,
		Example: "552 Message size exceeds fixed limit"}, // RFC 1870 §6.1
	{Name: "too-large", Stages: fromMail, Code: "5yz", Enhanced: "5.3.4", Class: mail.MessageFault,
		Example: "550 5.3.4 Message too big for system"},
	{Name: "address", Stages: fromMail, Code: "5yz", Enhanced: "5.1.*", Class: mail.MessageFault,
		Example: "553 5.1.8 Domain of sender address does not exist"},
	{Name: "content", Stages: fromMail, Code: "5yz", Enhanced: "5.6.*", Class: mail.MessageFault,
		Example: "550 5.6.0 Lone CR or LF in headers"},
	{Name: "policy", Stages: fromMail, Code: "5yz", Enhanced: "5.7.*", Class: mail.MessageFault,
		Example: "554 5.7.1 Message contains spam"},
	{Name: "spam", Stages: fromMail, Code: "5yz", Enhanced: "-", Text: `\b(spam|virus|blocked|blacklist|blocklist|policy)`, Class: mail.MessageFault,
		Example: "554 Message rejected as spam"},
	// Nobody knows this one: to hold the mail would keep it from its sender for days, and he can act on a report.
	{Name: mail.RuleNone, Stages: fromMail, Code: "5yz", Class: mail.MessageFault,
		Example: "571 Delivery refused"},
}
