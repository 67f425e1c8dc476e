package replies

import (
	"time"

	"postern/mail"
)

var (
	// host is how a reply calls our machine.
	host = either(
		`\b(?:client|connecting|sending|source|originating|your|their|sender'?s?|remote|email|e-mail)(?: mail| smtp|`+
			` sending| sender| client| source| public)* `+
			`(?:host|ips?|ip[- ]address(?:es)?|servers?|network|hostname|host name|mta|netblock|subnet)\b`,
		`\bips?\b`, `\bconnections? (?:attempts? )?from\b`, `\bhost network\b`)
	// refused is what becomes of machines.
	refused = either(`block\w*`, `on (?:\w+ ){1,2}block[ -]?list`, `banned`, `\bban\b`, `black-?list\w*`,
		`deny-?list\w*`, `\blisted\b`,
		`\bden(?:y|ied)\b`, `reject\w*`, `refus\w*`, `prohibited`, `forbidden`, `unauthori[sz]ed`, `reputation`,
		`unverifiable`, `suspicious`,
		`not (?:\w+ )?(?:be )?(?:accept\w*|allowed|permitted|authori[sz]ed|registered|whitelisted|welcome|known|`+
			`trusted)`,
		`lookup fail`, `name lookup`, `invalid`, `\bblack\b`, `mismatch\w*`, `\bbad\b`)
	// stopped is what becomes of accounts.
	stopped = either(`suspend\w*`, `disabled`, `de-?activated`, `inactiv\w*`, `unactivated`, `\bblocked`, `\blocked`,
		`banned`, `frozen`, `expired`,
		`not (?:\w+ ){0,2}(?:activ\w*|enabled|subscribed|available|paid|confirmed|allowed to send)`,
		`terminated`, `closed`, `on hold`, `on probation`, `under review`, `restricted`, `unpaid`, `overdue`, `paused`,
		`compromised`, `hacked`,
		`stopped`, `pending (?:approval|review|activation|verification)`, `gesperrt`, `blockiert`, `deaktiviert`,
		`bloccat\w*`, `sospes\w*`, `suspendu\w*`, `bloqu\w+`, `desactivad\w*`, `d.{1,2}sactiv\w*`)
	// author is how a reply calls the reverse-path or the header author.
	author = either(
		`\b`+either(`senders?`, `mail ?from(?: address| domain| command|:| <| @| not| must| should)`, `mailfrom`,
			`envelope[- ]from`,
			`from (?:address|header|domain|field|line)`, `(?:header|return|reverse)[- _]?(?:from|path)`, `absender\w*`,
			`remitente`,
			`mittente`, `originator`, `from (?:this|that|your|the) (?:e-?mail )?(?:address|domain)`)+`\b`,
		`exp.{1,2}diteur`, `.{0,2}metteur\b`, `["'<]from["'>]`, `\bfrom:`)
	// unowned is what is wrong with them.
	unowned = either(
		`not (?:\w+ ){0,2}`+either(`owned`, `logged in`, `allowed`, `authori[sz]ed`, `permitted`, `verified`,
			`valid\w*`, `confirmed`, `registered`,
			`associated`, `approved`, `pre-approved`, `configured`, `accepted`, `yours?`, `belong\w*`, `match\w*`,
			`exist\w*`,
			`found`, `one of`),
		`un(?:verified|authori[sz]ed|confirmed|validated|registered|approved|configured|known|routable|routeable)`,
		`(?:doesn't|does not|must|should|has to|did not|do not|don't) (?:\w+ )?`+
			either(`match`, `belong`, `correspond`, `equal`,
				`be (?:a |an |the |one of )?(?:valid\w*|verified|registered|owned|same|your|identical)`),
		`not (?:on|in) (?:the|our|your) (?:\w+ )?list`, `mismatch\w*`, `invalid\w*`, `reject\w*`, `refus\w*`, `blocked`,
		`denied`, `denies`, `disallowed`, `forbidden`, `prohibited`,
		`verif\w+ fail\w*`,
		`nicht (?:erlaubt|berechtigt|zul.{1,2}ssig)`, `non autoris\w+`, `no autorizad\w*`, `non autorizzat\w*`)
)

// hostWords are about our address or name.
var hostWords = []Rule{
	{Name: "our-name", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(near(`\b(?:helo|ehlo)(?:host)?\b`, either(`reject`, `refus`, `invalid`, `denied`, `listed`,
			`block`, `\bneed`,
			`\bmust\b`, `\bbad\b`,
			`\bnot\b`, `mismatch`, `forged`, `syntax`, `error`, `fail`, `incorrect`, `missing`)),
			`need fully-qualified hostname`),
		Example: "504 5.5.2 <syslog>: Helo command rejected: need fully-qualified hostname"},
	{Name: "our-name", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(`\bptr\b`, `reverse[- ](?:dns|hostname|lookup|mapping|record|ip)`, `\bf?c?rdns\b`,
			`(?:cannot|can't) find your`,
			`forward dns entry`, `relay host name`),
		Example: "550 5.7.25 The IP address sending this message does not have a PTR record, or the corresponding " +
			"forward DNS " +
			"entry does not point to the sending IP"},
	{Name: "sender-domain", Stages: fromMail, Code: "5yz", Class: mail.MessageFault,
		Text: either(`domain of sender`, `sender address rejected: (?:domain|name server|malformed)`,
			`(?:dns|\bmx\b)[^.;]*resource record`,
			`sender[^.;]*domain[^.;]*(?:not found|does not exist|not exist|not resolve|cannot be resolved|`+
				`unresolvable)`),
		Example: "553 5.1.8 Domain of sender address does not exist"},
	{Name: "sender-domain", Stages: fromMail, Code: "4yz", Class: mail.Deferral,
		Text:    either(`domain of sender`, `sender address rejected: (?:domain|name server|malformed)`),
		Example: "450 4.1.8 <boss@example.com>: Sender address rejected: Domain not found"},
	{Name: "sender-not-owned", Stages: fromMail, Code: "5yz", Class: mail.AccountFault, Scope: ScopeSender,
		RetryAfter: 15 * time.Minute,
		Text:       `sender verif\w+ fail|(?:could not|cannot|can't|unable to) verify (?:the )?sender`,
		Example:    "550 Sender verify failed"},
	{Name: "sender-listed", Stages: fromMail, Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: time.Hour,
		Text: either(`\bsender is [^.;]*(?:listed|blocked|black[ -]?list)`,
			`\b(?:sender|mail ?from|from|sending)(?: address| domain| e-?mail){1,2}\b[^.;]*(?:listed|blocked|`+
				`black-?list\w*)`,
			`your (?:e-?mail )?address (?:has been|is|was) (?:black-?list|block)`,
			`reputation of (?:the |your )?(?:sender\b|(?:sending |sender |from )?domain)`),
		Example: "554 5.7.1 Service unavailable; Sender address [boss@example.com] blocked using dbl.spamhaus.org"},
	{Name: "recipient-refused", Stages: toRecipient, Code: "5yz", Class: mail.RecipientFault,
		Text: `\brecipient address\b[^;]*` + either(`blocked using`, `listed`, `rejected: access denied`, `rejected: `+
			either(`user`, `undeliverable`, `unverified`, `mailbox`, `address`, `domain`, `no such`, `not found`,
				`unknown`, `invalid`)),
		Example: "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)"},
	{Name: "address-blocked", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(near(host, refused), `\bclient (?:host )?[^.;]*(?:reject|block|den)`, `not allowed to connect`,
			`you are not welcome`,
			`(?:connection|access) (?:refused|rejected|denied) (?:from|for)`, `\bnot accepting connections`),
		Example: "550 5.7.1 Service unavailable, Client host [192.0.2.7] blocked using Spamhaus. To request removal " +
			"from this " +
			"list see https://www.spamhaus.org/query/ip/192.0.2.7 (AS16012611)"},
	{Name: "address-blocked", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(`blocked using`, `on (?:a|our|the|their) (?:\w+ )?(?:block|black|deny)[ -]?list`,
			`\b(?:sbl|xbl|pbl|rbl|dnsbl)\b`, `spamhaus`,
			`spamcop`, `barracuda ?central`, `black[ -]?list\w*`, `delist`, `removal from th`, `request removal`,
			`dynamic ip`,
			`open (?:proxy|relay)`, `(?:poor|bad|low) (?:\w+ )?reputation`, `reputation (?:score|problem)`,
			`you are (?:banned|blocked|sending spam)`,
			`use (?:the |your )?(?:smtp )?(?:server|relay|smarthost) of your (?:isp|provider)`),
		Example: "550 Rejected, relay.example.com is in an RBL: https://www.spamhaus.org/query/ip/192.0.2.7"},
}

// senderWords are about one reverse-path or author.
var senderWords = []Rule{
	{Name: "syntax", Stages: atMail, Code: "501", Text: `invalid|syntax|\bbad\b|malformed|illegal`,
		Class:   mail.MessageFault,
		Example: "501 5.1.7 Invalid MAIL FROM address provided"},
	{Name: "login-required", Stages: fromMail, Class: mail.AccountFault, Login: true,
		Text:    `unauthenticated (?:user|sender|client|connection|smtp|relay)s?\b`,
		Example: "550 Unauthenticated senders not allowed"},
	{Name: "sender-not-owned", Stages: fromMail, Class: mail.AccountFault, Scope: ScopeSender,
		RetryAfter: 15 * time.Minute,
		Text: either(author+`[^.;]*`+unowned, unowned+` (?:\w+ ){0,2}`+author,
			`\b(?:blank|null|empty|not (?:a )?local) sender`,
			`\bmail ?from (?:is )?(?:not|must|should|invalid|rejected|refused|denied)\b`,
			`own address as (?:the )?(?:sender|from)`),
		Example: "553 5.7.1 <boss@example.com>: Sender address rejected: not owned by user relay@example.com"},
	{Name: "sender-not-owned", Stages: fromMail, Class: mail.AccountFault, Scope: ScopeSender,
		RetryAfter: 15 * time.Minute,
		Text: either(`relay\w* (?:disallowed|denied|not allowed) as\b`,
			`(?:\bnot\b|n't\b|cannot|\bmay only|\bunable|\bunauthori[sz]ed|\bunverified|denied|only)[^.;]*\b(?:send|`+
				`sending|submit|relay|use|using|mail)\b[^.;]*`+
				`\b(?:from|as|on behalf|using)\b[^.;]*`+either(`address`, `sender`, `domain`, `@`, `e-?mail`,
				`identity`, `user`,
				`behalf`, `header`, `\w_\w`),
			`(?:\bnot\b|n't\b|cannot|\bunable|denied)[^.;]*\bon behalf of\b`,
			`(?:\bnot\b|n't\b|cannot)[^.;]*\buse\b[^.;]*(?:sender|from)\b`),
		Example: "550 You are not authorized to send mail as boss@example.com"},
	{Name: "sender-not-verified", Stages: fromMail, Class: mail.AccountFault, Scope: ScopeSender, RetryAfter: time.Hour,
		Text: either(`\b(?:domains?|identit(?:y|ies)|e-?mail address|sending address)\b[^.;]*`+
			either(`not (?:\w+ )?(?:verified|validated|confirmed|registered|associated|configured|approved|`+
				`authori[sz]ed|active|allowed to send|permitted)`,
				`un(?:verified|confirmed|configured|registered|authori[sz]ed|validated)`),
			`un(?:verified|confirmed|configured|registered|authori[sz]ed|validated) (?:\w+ )?(?:domain|identity|`+
				`e-?mail)`),
		Example: "550 The domain example.com is not verified for this account"},
}

// accountWords are about the account as a whole, and about recipients that such words are used of.
var accountWords = []Rule{
	{Name: "account-stopped", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(
			`\byour (?:\w+ ){0,3}`+either(`account`, `mailbox`, `domain`, `service`, `subscription`, `plan`, `access`,
				`server`, `user`,
				`organi[sz]ation`, `company`, `tenant`, `key`, `credentials`, `licen[cs]e`, `smtp`, `trial`,
				`login`)+`\b[^.;]*`+
				either(stopped, `reject`, `denied`, `revoked`),
			`\b(?:smtp|submission|customer'?s?|tenant|subscription|sender'?s) (?:\S+ ){0,4}`+stopped,
			`\b(?:outbound|outgoing|sending)\b[^.;]*`+stopped, stopped+` (?:from sending|to send|for sending)`,
			`\byour (?:\w+ )?(?:account|plan|subscription|package|tier)\b[^.;]*(?:does not|doesn't|do not) (?:allow|`+
				`include|permit|support)`,
			`\b(?:ihre?|deine?|votre|vostro|tuo|suo|su|tu) (?:\S+ )?(?:e-mail-)?(?:konto|account|postfach|compte|`+
				`cuenta|casella)\b[^.;]*`+stopped,
			`\bthis (?:smtp )?server (?:is|has been) (?:\w+ )?(?:inactive|disabled|suspended|deactivated)`,
			`\btenant\b[^.;]*threshold`, `\bnot subscribed to (?:\w+ ?)$`),
		Example: "552 Your account has been suspended. Please contact us to reactivate"},
	{Name: "account-stopped", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: `\b(?:account|service|mailbox|server|domain|user|access|mail)\b[^.;]*` + stopped + `[^!]*\b` +
			either(`contact (?:us|your|support|the|our)`, `support@`,
				`(?:for|due to|because of) (?:sending|spam|abuse|excessive|outgoing|suspicious)`),
		Example: "550 Mailbox relay@example.com is locked because of suspicious activity"},
	{Name: "unknown-recipient", Stages: toRecipient, Code: "5yz", Class: mail.RecipientFault,
		Text: either(
			`\b(?:unknown|no such|invalid|not a valid) (?:local |mail ?box |e-?mail )*(?:address|account|alias|`+
				`local part|recipients?|mailbox|user)\b`,
			`\b(?:user|recipients?|mailbox|account|address|alias|destinat\w+|usuario|utente|benutzer|empf\S+nger\w*|`+
				`adresse)\b[^.;]{0,20}?`+
				either(`unknown`, `not found`,
					`not (?:be )?(?:known|exist\w*|recogni[sz]ed|valid|listed|local|found|here)`,
					`invalid`, `no longer`,
					`(?:doesn't|does not|do not|didn't|did not|could not|couldn't) (?:exist|be found)`, `marked as`,
					`inconnu`,
					`desconocid`,
					`sconosciut`, `unbekannt`, `existiert nicht`, `n'existe`, `no existe`, `inesistente`),
			`suppression list`, `inactive recipient`),
		Example: "550 Invalid recipient: bob@example.net"},
	// A status code that names the recipient does not make him ask for our login.
	{Name: "login-required", Stages: atRcpt, Code: "5yz", Class: mail.AccountFault, Login: true,
		Text:    `^\W*(?:smtp[- ])?(?:auth|authentication|login)(?: is)? (?:required|needed)\b`,
		Example: "550 5.1.0 Authentication required"},
	{Name: "recipient-refused", Stages: atRcpt, Code: "5yz", Enhanced: "5.2.1", Class: mail.RecipientFault,
		Example: "550 5.2.1 Account inactive"},
	{Name: "recipient-refused", Stages: atRcpt, Code: "5yz", Enhanced: "5.1.*", Class: mail.RecipientFault,
		Example: "550 5.1.1 Account disabled or discontinued"},
	{Name: "recipient-refused", Stages: atRcpt, Code: "5yz", Class: mail.RecipientFault,
		Text: either(`^\W*<?@>?[^.;]*`+stopped, `\bthis (?:\S+ )?(?:account|address)\b[^.;]*`+stopped,
			`\b(?:mail ?box|recipient|addressee|destination|user)\b[^.;]*`+stopped),
		Example: "550 mailbox disabled for this recipient"},
	{Name: "account-stopped", Code: "5yz", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(`\baccount\b[^.;]*`+stopped, stopped+` account\b`,
			`access denied, (?:spam abuse|banned|traffic|tenant|bad outbound)`,
			`traffic not accepted`, `bad outbound sender`, `on probation`),
		Example: "554 5.0.0 Error: The account is not available in Bridge. Verify the outgoing server settings in " +
			"your mail client and try again"},
	{Name: "account-stopped", Code: "4yz", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text:    `\baccount\b[^.;]*` + stopped,
		Example: "450 The account is not yet activated"},
}

// loginWords are about the login, which may have lapsed, and the right to relay.
var loginWords = []Rule{
	{Name: "login-required", Stages: fromMail, Class: mail.AccountFault, Login: true,
		Text: either(`\bauth\w*\b[^.;]*(?:required|needed|first|missing|necessary|before)`,
			`\b(?:requires?|need|must|should|please|ha(?:ve|s) to|to be|without|not|no) (?:\w+ ){0,3}`+
				either(`auth`, `authenticat\w*`, `authentification`, `log ?in`, `logged in`, `sign(?:ed)? in`,
					`pop before smtp`)+`\b`, `permissions? to submit`,
			`\b(?:log|sign) ?in (?:first|before|required|is required)`, `authentication turned on`,
			`(?:authentifizierung|anmeldung) erforderlich`, `authentification (?:requise|obligatoire)`,
			`autenticaci\S+n requerida`,
			`autenticazione richiesta`),
		Example: "550 5.7.1 You must log in before you send"},
	{Name: "login-refused", Stages: fromMail, Code: "5yz", Class: mail.AccountFault,
		Text: `\bauth(?:entication|entification|orization)?\b[^.;]*` +
			either(`fail`, `error`, `invalid`, `unsuccessful`,
				`incorrect`, `expired`),
		Example: "570 5.7.0 Authentication failure"},
	{Name: "encryption-required", Stages: fromMail, Code: "5yz", Class: mail.AccountFault,
		Text: either(`(?:starttls|\btls\b|\bssl\b|encrypt\w+)[^.;]*(?:required|needed|first|must|mandatory)`,
			`(?:must|need|requires?)\b[^.;]*(?:starttls|\btls\b|encrypt\w*)`),
		Example: "550 5.7.10 Encryption needed"},
	{Name: "relay-denied", Stages: fromMail, Code: "5yz", Class: mail.AccountFault, RetryAfter: 15 * time.Minute,
		Text: either(`relay\w*(?: \w+){0,4} `+either(`denied`,
			`not (?:\w+ )?(?:permitted|allowed|authori[sz]ed|supported|accepted)`, `prohibited`,
			`disallowed`, `refused`, `rejected`, `disabled`, `forbidden`),
			`(?:unable|\bnot (?:\w+ )?(?:allowed|permitted|authori[sz]ed|able|configured)|cannot|can't|won't|do not|`+
				`don't|may not|\bno|denied|denies|refus\w*|prohibited)`+
				`(?: \w+){0,3} relay\w*`,
			`\brelay\w*: `, `\brelay check`, `rcpthosts?`, `not an? (?:open )?relay`, `as a relay`,
			`insecure mail relay`,
			`credentials for relay`, `kein relay`,
			`relais refus`),
		Example: "550 5.7.0 Mail relay denied. - gsmtp"},
	// At MAIL nobody but the sender can be the subject: the narrower scope is taken.
	{Name: "sender-refused", Stages: atMail, Code: "55z", Class: mail.AccountFault, Scope: ScopeSender,
		RetryAfter: 15 * time.Minute,
		Text: either(`access denied`, `\bnot (?:\w+ )?(?:allowed|permitted|authori[sz]ed)`, `address rejected`,
			`\bdenied\b`, `\bprohibit`,
			`\bblocked\b`, `unauthori[sz]ed`),
		Example: "550 5.7.1 Access denied"},
}
