package graph

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// Rule says whose matter an answer of Graph is. Rules are data: the configured ones come first, then the built-in ones; the
// first that matches decides. Empty fields match everything.
type Rule struct {
	Name   string
	Status string   // three places, a letter stands for any digit: "429", "4xx"
	Codes  []string // error.code, case ignored; "-" stands for an answer that is no error of Graph's
	Text   string   // RE2, case ignored, searched in error.message

	Class mail.Class
	// Code and Enhanced are what the answer would be in SMTP.
	Code       int
	Enhanced   string
	RetryAfter time.Duration // at least; 0: Retry-After, the retry table or the back-off decides
	DropToken  bool          // the token may be what is wrong: the next attempt gets another
	Again      bool          // with another token, once, at once
	Login      bool          // we are not let in, or not as this mailbox
	Author     bool          // it is about this header author; the mailbox may send for others
	Uncertain  bool          // Graph may have sent the message
	Quota      bool          // what the mailbox may send is used up: a restart must not forget it

	Fix string // for people: what to do
	// Example is an answer seen in the field or printed in Microsoft's documentation: status, code, message.
	Example string
}

// isPermission reports a rule that says that a right is missing.
func (r *Rule) isPermission() bool { return r.Name == "permission" || r.Name == "forbidden" }

const day = 24 * time.Hour

// builtinRules are complete: any status but 202 matches one.
var builtinRules = []Rule{
	{Name: "send-as", Codes: []string{"ErrorSendAsDenied"}, Class: mail.AccountFault, Code: 454, Enhanced: "4.7.1", Author: true,
		Fix:     "give this mailbox the right Send As for the address in From, or let the message's From be the mailbox",
		Example: "403 ErrorSendAsDenied The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message."},
	{Name: "token", Status: "401", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true, Again: true,
		Fix:     "look at scope and tenant in [upstream.oauth]: the token must be for " + "https://graph.microsoft.com",
		Example: "401 InvalidAuthenticationToken Access token has expired or is not yet valid."},
	{Name: "no-rest-mailbox", Codes: []string{"MailboxNotEnabledForRESTAPI", "MailboxNotSupportedForRESTAPI", "ErrorMailboxNotEnabledForRESTAPI"},
		Class: mail.AccountFault, Code: 454, Enhanced: "4.2.1", Login: true,
		Fix:     "the mailbox is not in Exchange Online, has no licence, or is inactive",
		Example: "404 MailboxNotEnabledForRESTAPI The mailbox is either inactive, soft-deleted, or is hosted on-premise."},
	{Name: "account-suspended", Codes: []string{"ErrorAccountSuspend", "ErrorAccountSuspendShowTierUpgrade", "ErrorMessageSubmissionBlocked"},
		Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", RetryAfter: time.Hour,
		Fix:     "Microsoft has blocked the mailbox from sending: see Restricted entities in the Defender portal",
		Example: "403 ErrorAccountSuspend Account suspended. Follow the instructions in your Inbox to verify your account., Cannot submit message."},
	{Name: "daily-quota", Codes: []string{"ErrorExceededMessageLimit", "ErrorExceededHourlyMessageLimit", "ErrorSubmissionQuotaExceeded", "ErrorSendQuotaExceeded", "ErrorMessagePerDayLimitExceeded"},
		Class: mail.AccountFault, Code: 454, Enhanced: "4.2.3", RetryAfter: time.Hour, Quota: true,
		Fix:     "the mailbox has used up what it may send; the mail waits for the window to move on",
		Example: "403 ErrorExceededMessageLimit Cannot send mail. Daily Message/Recipient limit exceeded., Cannot submit message."},
	{Name: "mailbox-full", Codes: []string{"ErrorQuotaExceeded", "ErrorMailboxQuotaExceeded", "QuotaExceeded"},
		Class: mail.AccountFault, Code: 452, Enhanced: "4.2.2", RetryAfter: 15 * time.Minute,
		Fix:     "the sending mailbox is full, often with Sent Items: clean it up or give it an archive",
		Example: "507 ErrorQuotaExceeded The mailbox has exceeded the maximum mailbox size., Cannot save changes made to an item to store."},
	{Name: "mailbox-full", Status: "507", Class: mail.AccountFault, Code: 452, Enhanced: "4.2.2", RetryAfter: 15 * time.Minute,
		Fix:     "the sending mailbox is full, often with Sent Items: clean it up or give it an archive",
		Example: "507 - Insufficient Storage"},

	{Name: "throttled", Status: "429", Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "429 ApplicationThrottled Application is over its MailboxConcurrency limit."},
	{Name: "busy", Codes: []string{"ApplicationThrottled", "TooManyRequests", "ErrorTooManyRequests", "ErrorServerBusy", "CommandConcurrencyLimitReached", "ErrorMailboxStoreUnavailable",
		"ErrorMailboxMoveInProgress", "ErrorExceededConnectionCount", "MailboxInfoStale", "ErrorMailboxFailover"},
		Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "503 ErrorServerBusy The server is too busy."},
	{Name: "busy", Status: "503", Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "503 - Service Unavailable"},
	{Name: "bandwidth", Status: "509", Class: mail.BackPressure, Code: 451, Enhanced: "4.3.2",
		Example: "509 - Bandwidth Limit Exceeded"},
	{Name: "slow-request", Status: "408", Class: mail.BackPressure, Code: 451, Enhanced: "4.4.2",
		Example: "408 - Request Timeout"},

	{Name: "too-big", Status: "413", Class: mail.MessageFault, Code: 552, Enhanced: "5.3.4",
		Example: "413 RequestEntityTooLarge The maximum request length supported is 4MB."},
	{Name: "too-big", Codes: []string{"ErrorMessageSizeExceeded", "RequestEntityTooLarge", "ErrorAttachmentSizeLimitExceeded"}, Class: mail.MessageFault, Code: 552, Enhanced: "5.3.4",
		Example: "400 ErrorMessageSizeExceeded The message exceeds the maximum supported size., Cannot save changes made to an item to store."},
	{Name: "too-big", Status: "400", Text: `maximum request length`, Class: mail.MessageFault, Code: 552, Enhanced: "5.3.4",
		Example: "400 BadRequest The maximum request length supported is 4MB."},
	{Name: "too-many-recipients", Codes: []string{"ErrorExceededMaxRecipientLimit", "ErrorExceededMaxRecipients", "ErrorTooManyRecipients"}, Class: mail.MessageFault, Code: 550, Enhanced: "5.5.3",
		Example: "400 ErrorExceededMaxRecipientLimit The maximum number of recipients is exceeded."},
	// Graph does not say which one, and takes the message for all or for nobody.
	{Name: "recipients", Codes: []string{"ErrorInvalidRecipients", "ErrorInvalidSmtpAddress"}, Class: mail.MessageFault, Code: 550, Enhanced: "5.1.3",
		Example: "400 ErrorInvalidRecipients At least one recipient is not valid., A message can't be sent because it contains no recipients."},
	// Our own encoding is at fault here, and that is temporary by default.
	{Name: "base64", Codes: []string{"ErrorMimeContentInvalidBase64String"}, Class: mail.Deferral, Code: 451, Enhanced: "4.3.0",
		Example: "400 ErrorMimeContentInvalidBase64String Invalid base64 string for MIME content."},
	{Name: "mime", Codes: []string{"ErrorMimeContentInvalid", "ErrorMimeContentConversionFailed"}, Class: mail.MessageFault, Code: 554, Enhanced: "5.6.0",
		Example: "400 ErrorMimeContentInvalid The MIME content is invalid."},
	{Name: "refused-content", Codes: []string{"ErrorMessageBlocked", "ErrorMessageTransmissionBlocked"}, Class: mail.MessageFault, Code: 554, Enhanced: "5.7.1",
		Example: "403 ErrorMessageBlocked Message blocked."},

	// The permission is inside the token: one that was fetched before the consent is of no use after it.
	{Name: "permission", Codes: []string{"ErrorAccessDenied", "AccessDenied", "Authorization_RequestDenied", "Forbidden"}, Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true,
		Fix:     "give the application Mail.Send for this mailbox (docs/upstreams/microsoft-graph.md); Exchange takes up to two hours to notice",
		Example: "403 ErrorAccessDenied Access is denied. Check credentials and try again."},
	{Name: "forbidden", Status: "403", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", Login: true, DropToken: true,
		Fix:     "give the application Mail.Send for this mailbox (docs/upstreams/microsoft-graph.md); a proxy or Conditional Access may refuse too",
		Example: "403 - Forbidden"},
	{Name: "no-mailbox", Codes: []string{"ErrorInvalidUser", "ErrorNonExistentMailbox", "ResourceNotFound", "Request_ResourceNotFound", "ErrorInvalidMailbox"},
		Class: mail.AccountFault, Code: 454, Enhanced: "4.1.8", Login: true,
		Fix:     "no such mailbox in this tenant: look at username",
		Example: "404 ErrorInvalidUser The requested user 'scanner@example.com' is invalid."},
	{Name: "not-here", Status: "404", Class: mail.AccountFault, Code: 454, Enhanced: "4.1.8", Login: true,
		Fix:     "no such mailbox in this tenant, or this is not Graph: look at username and host",
		Example: "404 - Not Found"},

	// 504 and 500 have been seen for mail that was sent (learn.microsoft.com/answers/questions/2286986 and 5629476).
	{Name: "gateway-timeout", Status: "504", Class: mail.Deferral, Code: 451, Enhanced: "4.4.7", Uncertain: true,
		Example: "504 UnknownError Gateway Timeout"},
	{Name: "server-error", Status: "5xx", Class: mail.Deferral, Code: 451, Enhanced: "4.3.0", Uncertain: true,
		Example: "500 ErrorInternalServerError An internal server error occurred. The operation failed."},
	// 200 has been seen for large messages that were not sent (github.com/microsoftgraph/microsoft-graph-docs/issues/13979).
	{Name: "not-202", Status: "2xx", Class: mail.Deferral, Code: 451, Enhanced: "4.3.0", Uncertain: true,
		Example: "200 - OK"},
	{Name: "redirect", Status: "3xx", Class: mail.AccountFault, Code: 454, Enhanced: "4.3.5",
		Fix:     "this is not Graph: look at host, and at proxies between",
		Example: "302 - Found"},

	{Name: "not-graph", Status: "400", Codes: []string{"-"}, Class: mail.Deferral, Code: 451, Enhanced: "4.3.0",
		Example: "400 - Bad Request"},
	{Name: unknownRule, Status: "400", Class: mail.MessageFault, Code: 554, Enhanced: "5.0.0",
		Example: "400 ErrorInvalidRequest The request is invalid."},
	{Name: unknownRule, Status: "422", Class: mail.MessageFault, Code: 554, Enhanced: "5.0.0",
		Example: "422 UnprocessableEntity Cannot process the request."},
	// 405, 407, 411, 415 and so on are about how we ask, or about who stands between.
	{Name: "request", Class: mail.AccountFault, Code: 454, Enhanced: "4.3.5",
		Fix:     "look at host, and at proxies between",
		Example: "407 - Proxy Authentication Required"},
}

// unknownRule is the name of the rules that blame the message because nothing better is known; the trace says so.
const unknownRule = "unknown"

// matcher is a Rule made ready to match.
type matcher struct {
	Rule
	text *regexp.Regexp
}

func compileRules(own []Rule) ([]matcher, error) {
	all := slices.Concat(own, builtinRules)
	ms := make([]matcher, len(all))
	for i, r := range all {
		m, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		ms[i] = m
	}
	return ms, nil
}

func (r Rule) compile() (matcher, error) {
	m := matcher{Rule: r}
	if r.Status != "" && len(r.Status) != 3 {
		return m, fmt.Errorf("status %q has not three places", r.Status)
	}
	if r.Class <= mail.Delivered || r.Class > mail.BackPressure {
		return m, fmt.Errorf("class %s cannot be given to a refusal", r.Class)
	}
	want := 4
	if r.Class.Permanent() {
		want = 5
	}
	if r.Code/100 != want || !strings.HasPrefix(r.Enhanced, strconv.Itoa(want)+".") {
		return m, fmt.Errorf("%d %s does not fit the class %s", r.Code, r.Enhanced, r.Class)
	}
	if r.Text != "" {
		re, err := regexp.Compile("(?i)" + r.Text)
		if err != nil {
			return m, err
		}
		m.text = re
	}
	return m, nil
}

func (m *matcher) matches(a *answer) bool {
	return matchStatus(m.Status, a.status) &&
		(len(m.Codes) == 0 || slices.ContainsFunc(m.Codes, a.hasCode)) &&
		(m.text == nil || m.text.MatchString(a.message))
}

func (a *answer) hasCode(code string) bool {
	if code == "-" {
		return a.code == ""
	}
	return strings.EqualFold(code, a.code)
}

func matchStatus(pattern string, status int) bool {
	if pattern == "" {
		return true
	}
	s := strconv.Itoa(status)
	if len(s) != len(pattern) {
		return false
	}
	for i := range len(s) {
		if c := pattern[i]; c >= '0' && c <= '9' && c != s[i] {
			return false
		}
	}
	return true
}

// classify finds the rule for an answer other than 202. The last rule matches everything.
func (u *Upstream) classify(a *answer) *Rule {
	for i := range u.rules {
		if m := &u.rules[i]; m.matches(a) {
			return &m.Rule
		}
	}
	return &u.rules[len(u.rules)-1].Rule
}

// refused makes a fault of an answer other than 202.
func (u *Upstream) refused(a *answer) *fault {
	rule := u.classify(a)
	f := &fault{
		stage: mail.StageDot, class: rule.Class, reply: mail.R(rule.Code, rule.Enhanced, "%s", a.words()),
		retryAfter: max(rule.RetryAfter, a.retryAfter), uncertain: rule.Uncertain, author: rule.Author, rule: rule, answered: true,
	}
	switch {
	case rule.Login:
		f.stage = mail.StageAuth
	case rule.Name == unknownRule:
		f.note = "no rule knows this answer of Graph's; it counts as the message's fault"
	case rule.Author:
		f.note = "only mail with this address in From is kept back; the mailbox sends other mail"
	}
	if rule.Class.Permanent() {
		f.retryAfter = 0
	}
	return f
}
