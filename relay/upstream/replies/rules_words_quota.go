package replies

import (
	"time"

	"postern/mail"
)

var (
	// period is how a rate or quota names its window.
	period = either(
		`\b(?:per|an|a|every|each|this|last|past|in|within|for) (?:an? |one |the )?(?:last |past )?(?:\d+[ -]?)?`+
			`(?:second|minute|min|hour|hr|h|day|week|month|time unit)s?\b`,
		`/ ?\d*[ -]?(?:sec|second|min|minute|h|hr|hour|d|day)s?\b`,
		`\b\d+[ -]?(?:h|hr|hour|day|minute|min)s?\b`,
		`\b(?:hour|day) (?:limit|quota)`,
		`\b(?:hourly|daily|weekly|monthly|today|day's)\b`,
		`st.{1,2}ndlich`, `t.{1,2}glich`, `pro (?:stunde|tag)`, `par (?:heure|jour)`, `por (?:hora|d.{1,2}a)`,
		`al (?:giorno|d.{1,2}a)`,
	)
	// bound is what a rate or quota is called.
	bound = either(`exceed\w*`, `\b(?:over)?limit\w*`, `\bquota\w*`, `\bmax(?:imum)?\b`, `too (?:many|much)`,
		`\ballowance\b`, `\brate\b`, `kontingent`, `zu viele`, `d.{1,2}pass`, `atteinte?\b`, `superad\w`)
	// counted is what a quota of ours counts, or belongs to.
	counted = `\b` + either(`send(?:s|ing|er|ers)?`, `sent`, `outbound`, `outgoing`, `submission`, `relay(?:ing)?`,
		`messages?`, `messaging`,
		`e-?mails?`, `mails?`, `mailing`, `smtp`, `rcpts?`, `requests?`, `plan`, `credits?`, `usage`, `traffic`,
		`volume`,
		`bandwidth`,
		`transactions?`, `subscription`, `your`, `you've`, `you have`, `envios?`, `versand`) + `\b`
	ceiling = either(`limits?`, `quotas?`, `allowance`, `allotment`, `credits?`, `cap`, `maximum`, `rate`) + `\b`
	spent   = either(`exceed\w*`, `reach\w*`, `used[ -]up`, `hit`, `exhaust\w*`, `surpass\w*`, `depleted`, `over`,
		`full`, `overrun`, `overdrawn`, `consumed`, `run out`, `out of`) + `\b`
)

// recipientWords speak of a recipient, whatever else they say.
var recipientWords = []Rule{
	{Name: "greylisted", Stages: fromMail, Code: "45z", Text: `\bgr[ae]y-?list`, Class: mail.Deferral,
		Example: "450 4.7.1 Client host rejected: Greylisted for 5 minutes"},
	{Name: "recipient-busy", Stages: fromMail, Class: mail.Deferral,
		Text: either(`STOREDRV.Deliver`, `recipient thread limit`, `they can receive`, `receive limit`,
			`receiv\w+ (?:mail|messages|e-?mail) (?:too|at a rate)`,
			`recipient(?:'s \w+)? (?:has )?exceed\w*[^.;]*receiv`),
		Example: "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive " +
			"per hour"},
	{Name: "recipient-refused", Stages: toRecipient, Code: "5yz", Class: mail.RecipientFault,
		Text: either(`\byou (?:tried|are trying|were trying|have tried) to (?:reach|contact|send to|e-?mail)`,
			`\b(?:doesn't|does not|do not) have an? \S+ account`, `delivery error: dd\b`),
		Example: "552-5.2.2 The email account that you tried to reach is over quota. Please direct\r\n552 5.2.2 the " +
			"recipient to " +
			"https://support.google.com/mail/?p=OverQuotaPerm - gsmtp"},
	{Name: "recipient-restricted", Stages: toRecipient, Code: "5yz", Class: mail.RecipientFault,
		Text: either(`(?:rejected|blocked|refused|denied) by (?:the )?recipient`, `banned recipient`,
			`list of senders to accept`, `only accept\w* (?:mail|messages) from`,
			`(?:authenticated|authori[sz]ed|permitted|allowed|permission)[^.;]*\b(?:for|to)\b[^.;]*\b`+
				either(`group`, `mailing list`, `distribution list`, `(?:this|the) recipient`)+`\b`),
		Example: "550 5.7.513 Service unavailable, Client host [192.0.2.7] blocked by recipient using Customer " +
			"Block list. AS(1410)"},
	{Name: "unknown-recipient", Stages: toRecipient, Code: "5yz", Class: mail.RecipientFault,
		Text: either(`\b(?:unknown|no such|non-?exist\w+|no valid|inexist\w+) (?:local |destination |virtual |`+
			`e-?mail )*`+
			`(?:users?|recipients?|mail ?box|addressee|person|destination|rcpt)\b`,
			`\b(?:user|recipient|mail ?box|addressee) (?:\S+ )?(?:is |was )?`+
				either(`unknown`, `not found`, `not known`, `does(?:n't| not) exist`, `not exist`, `no longer`)),
		Example: "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown in virtual mailbox table"},
}

// quotaWords are rates and quotas of ours, and the fullness of others that uses the same words. What names a window
// comes first, it says most.
var quotaWords = []Rule{
	// Somebody guesses addresses or passwords by us, or that is what it looks like.
	{Name: "too-many-errors", Class: mail.BackPressure,
		Text: `too many (?:\w+ )?` +
			either(`errors`, `failed`, `failures`, `bad`, `invalid`, `unknown`, `wrong`, `unrecogni[sz]ed`,
				`nonexist\w*`, `incorrect`),
		Example: "550 5.7.1 Too many invalid recipients, slow down"},
	{Name: "address-blocked", Code: "5yz", Class: mail.AccountFault, RetryAfter: time.Hour,
		Text: either(`sent from your ip address has been blocked`,
			`unusual rate of unsolicited mail originating from your`),
		Example: "550-5.7.1 Our system has detected an unusual rate of\r\n550-5.7.1 unsolicited mail originating " +
			"from your IP " +
			"address. To protect our\r\n550 5.7.1 users from spam, mail sent from your IP address has been blocked."},
	{Name: "too-many-connections", Class: mail.BackPressure, Slow: true,
		Text: either(`too many (?:\w+ ){0,2}(?:connections|sessions|threads)`, `trop de (?:\w+ )?connexions`,
			`zu viele (?:\w+ )?verbindungen`,
			near(`\b(?:connections?|sessions?|threads?)\b`, `\b(?:limit|exceed\w*|maximum)\b`)),
		Example: "421 4.7.0 Too many concurrent SMTP connections; please try again later"},
	{Name: "over-quota", Class: mail.BackPressure, windowed: true, RetryAfter: 15 * time.Minute,
		Text: `\b(?:quota|limit) of \d+` +
			either(`\W+(?:used|sent|reached|exceeded)`,
				` (?:\w+ )?(?:messages?|e?-?mails?|recipients?|rcpts?|sends?|per)\b`),
		Example: "550 5.7.1 Sender is over quota of 500 recipients, used 487, this mail has 20"},
	{Name: "over-quota", Class: mail.BackPressure, windowed: true, RetryAfter: 15 * time.Minute,
		Text: either(bound+`[^!]*`+period, period+`[^!]*`+bound),
		Example: "550 Domain example.com has exceeded the max emails per hour (100/100 (100%)) allowed.  Message " +
			"discarded."},

	// Too many recipients is no verdict on any of them.
	{Name: "too-many-recipients", Stages: atRcpt, Class: mail.Deferral, Rest: true,
		Text:    either(`too many (?:recipients|rcpts)`, `recipient limit`, `recipients? in a separate transaction`),
		Example: "552 too many recipients"},
	{Name: "too-many-recipients", Stages: atRcpt, Code: "5yz", Enhanced: "5.5.3", Class: mail.Deferral, Rest: true,
		Example: "550 5.5.3 Limit"},

	// A full mailbox is the recipient's: ours is known by the provider's profile.
	{Name: "mailbox-full", Stages: toRecipient, Code: "5yz", Class: mail.RecipientFault,
		Text: either(`\b(?:mail ?box|inbox|recipients?|storage|disk|postfach|bo.{1,2}te|buz.{1,2}n|casella)\b[^.;]*`+
			either(`\bfull\b`, `quota`, `exceed\w*`, `out of (?:space|storage)`, `voll\b`, `pleine`, `lleno`, `piena`),
			`\b(?:quota|storage)\b[^.;]*\b(?:mail ?box|recipient|inbox)\b`,
			`\buser(?: \S+)?(?: is| has)? (?:over|exceed\w*)[ -]?(?:the |their |his |its )?(?:quota|disk|storage)`,
			`\bquota\b[^.;]*\d ?(?:[kmgt]i?b|bytes|octets)\b`, `too many messages on the server`),
		Example: "552 5.2.2 <bob@example.net>: Recipient mailbox is full"},
	{Name: "mailbox-full", Stages: atRcpt, Code: "5yz", Enhanced: "5.2.2", Class: mail.RecipientFault,
		Example: "550 5.2.2 Over quota"},
	// Sizes are of one message.
	{Name: "too-large", Stages: fromMail, Code: "5yz", Class: mail.MessageFault,
		Text: either(`\b(?:message|mail|e-?mail|data|attachment|it|content|header|body) (?:file |size |length |is |`+
			`was )*`+
			either(`too (?:large|big|long)`, `exceeds`, `larger`, `bigger`)+`\b`,
			`\b(?:message|mail|header|body|attachment|content|line|file) ?(?:size|length)\b`,
			`\bsize (?:limit|exceed)`, `maximum (?:allowed )?(?:message )?(?:size|length)`, `exceed\w*[^.;]*\bsize\b`,
			`too (?:large|big)\b`),
		Example: "550 Message size exceeds the limit of 25 MB of your plan"},

	{Name: "too-fast", Class: mail.BackPressure, windowed: true,
		Text: either(`too (?:fast|quickly|rapidly|frequent\w*|often)\b`, `slow(?:ing)? down`, `\bslower\b`,
			`rate[- ]?limit`, `throttl`, `unusual rate`, `\bfrequency\b[^.;]*(?:high|limit|exceed)`,
			`over[ -]?limit\b`, `too (?:many|much) (?:\w+ )?`+either(`mails?`, `messages`, `e-?mails?`, `requests`,
				`sends`, `submissions`, `transactions`, `commands`, `deliveries`)+`\b`,
			ceiling+`[^.;]*too high`, near(`\b(?:exceed\w*|too high)`, `\brate\b`), `\bflood`,
			`zu (?:viele (?:e-?mails|nachrichten)|schnell)`, `trop (?:de messages|d.e-?mails|rapid\w+)`,
			`demasiad[oa]s (?:mensajes|correos)`),
		Example: "550 5.7.1 [STF] Sending too fast"},
	{Name: "over-quota", Class: mail.BackPressure, windowed: true, RetryAfter: 15 * time.Minute,
		Text: either(counted+`[^.;]*`+ceiling+`[^.;]*`+spent, spent+`[^.;]*`+counted+`[^.;]*`+ceiling,
			`\b(?:out of|no|not enough|insufficient) (?:\w+ ){0,2}credits?\b`,
			ceiling+` (?:for|of|on) [^.;]*`+counted+`[^.;]*`+spent,
			spent+`[^.;]*`+ceiling+` (?:for|of|on) [^.;]*`+counted),
		Example: "451 You've exceeded your messaging limits"},
	{Name: "over-quota", Stages: atMail, Text: `\bquota\b`, Class: mail.BackPressure, windowed: true,
		RetryAfter: 15 * time.Minute,
		Example:    "552 5.2.2 Quota exceeded"},
	{Name: "over-quota", Stages: atContent, Code: "5yz", Enhanced: "5.7.*", Text: `\bquota\b`,
		Class: mail.BackPressure, windowed: true, RetryAfter: 15 * time.Minute,
		Example: "550 5.7.1 Quota exceeded"},
}
