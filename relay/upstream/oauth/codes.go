package oauth

import (
	"strings"

	"postern/mail"
)

// Known is one trouble that authorization servers report, in plain words. The table is data; the first that matches
// decides. {name}, {client} and {tenant} in Fix stand for what is configured.
type Known struct {
	Code string // "AADSTS" and a number, or the "error" member
	Text string // what the description or the sub-error has in it, lower case; "" is anything

	Class      mail.Class
	Cause, Fix string

	// Example is a description as seen in the field; OAuthError is the "error" member beside it. A test holds every line to it.
	OAuthError, Example string
}

func (k Known) into(e *Error) *Error {
	e.Class, e.Code, e.Cause, e.Fix = k.Class, k.Code, k.Cause, k.Fix
	return e
}

func lookup(code string, a answer) (Known, bool) {
	for _, k := range knownCodes {
		if k.Code != code {
			continue
		}
		if k.Text == "" || strings.Contains(strings.ToLower(a.detail+" "+a.sub), k.Text) {
			return k, true
		}
	}
	return Known{}, false
}

// Fixes that several troubles share.
const (
	fixLogin   = "run: postern upstream login {name}"
	fixSecret  = "in the Entra admin center open App registrations, application {client}, Certificates & secrets, make a new client secret, and put its Value (not its ID) in client_secret"
	fixAccess  = "have an admin exclude this application or account from the Conditional Access policy, or use flow client-credentials, which no person's policy touches"
	fixConsent = "have an admin open App registrations, application {client}, API permissions, and press Grant admin consent; then run: postern upstream login {name}"
	fixTenant  = "check tenant in [upstream.oauth]; the Overview page of the Entra admin center shows the tenant ID"
)

// knownCodes is from https://learn.microsoft.com/entra/identity-platform/reference-error-codes (2026-09),
// https://developers.google.com/identity/protocols/oauth2 and RFC 6749 §5.2, RFC 8628 §3.5.
var knownCodes = []Known{
	// Microsoft: the application.
	{Code: "AADSTS700016", Class: mail.AccountFault, OAuthError: "unauthorized_client",
		Cause:   "the tenant does not know this application",
		Fix:     "check client_id (it is {client}) and tenant (it is {tenant}); the application must be registered in, or consented to by, this tenant",
		Example: "AADSTS700016: Application with identifier '6731de76-14a6-49ae-97bc-6eba6914391e' was not found in the directory 'Contoso'."},
	{Code: "AADSTS7000215", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause: "the client secret is wrong", Fix: fixSecret,
		Example: "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '6731de76-14a6-49ae-97bc-6eba6914391e'."},
	{Code: "AADSTS7000222", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause: "the client secret has expired", Fix: fixSecret,
		Example: "AADSTS7000222: The provided client secret keys for app '6731de76-14a6-49ae-97bc-6eba6914391e' are expired."},
	{Code: "AADSTS7000218", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause:   "the application is registered as confidential, and no secret was sent",
		Fix:     "in App registrations, application {client}, Authentication, switch on Allow public client flows; or set client_secret",
		Example: "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or 'client_secret'."},
	{Code: "AADSTS700025", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause: "the application is public, and a secret was sent", Fix: "remove client_secret and certificate from [upstream.oauth]",
		Example: "AADSTS700025: Client is public so neither 'client_assertion' nor 'client_secret' should be presented."},
	{Code: "AADSTS700027", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause:   "the certificate is not one that the application knows, or its signature does not verify",
		Fix:     "upload the public half of the configured certificate in App registrations, application {client}, Certificates & secrets; if it is there, check the clock",
		Example: "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on application."},
	{Code: "AADSTS700024", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause: "the signed assertion is outside its time: the clock here is wrong", Fix: "set the clock of this machine (NTP)",
		Example: "AADSTS700024: Client assertion is not within its valid time range."},
	{Code: "AADSTS7000112", Class: mail.AccountFault, OAuthError: "unauthorized_client",
		Cause: "the application is disabled", Fix: "have an admin enable Enterprise applications, application {client}, Properties, Enabled for users to sign in",
		Example: "AADSTS7000112: Application '6731de76-14a6-49ae-97bc-6eba6914391e'(postern) is disabled."},
	{Code: "AADSTS7000229", Class: mail.AccountFault, OAuthError: "unauthorized_client",
		Cause: "the application has no service principal in this tenant", Fix: "have an admin of the tenant consent to application {client} once",
		Example: "AADSTS7000229: The client application is missing service principal in the tenant."},
	{Code: "AADSTS700054", Class: mail.AccountFault, OAuthError: "unsupported_response_type",
		Cause: "the application may not use this flow", Fix: "register application {client} under Mobile and desktop applications",
		Example: "AADSTS700054: response_type 'id_token' is not enabled for the application."},
	{Code: "AADSTS50011", Class: mail.AccountFault, OAuthError: "invalid_request",
		Cause:   "the redirect address is not registered for the application",
		Fix:     "in App registrations, application {client}, Authentication, add the platform Mobile and desktop applications with the redirect URI http://localhost",
		Example: "AADSTS50011: The redirect URI 'http://localhost:41234' specified in the request does not match the redirect URIs configured for the application."},
	{Code: "AADSTS50194", Class: mail.AccountFault, OAuthError: "invalid_request",
		Cause: "the application belongs to one tenant, and tenant is not set to it", Fix: fixTenant,
		Example: "AADSTS50194: Application '6731de76'(postern) is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps."},
	{Code: "AADSTS500011", Class: mail.AccountFault, OAuthError: "invalid_resource",
		Cause: "the tenant does not have the service that scopes names", Fix: "remove scopes from [upstream.oauth], or check them; a tenant without Exchange Online has no SMTP",
		Example: "AADSTS500011: The resource principal named https://outlook.office365.com was not found in the tenant named Contoso."},
	{Code: "AADSTS500014", Class: mail.AccountFault, OAuthError: "invalid_resource",
		Cause: "the service is disabled in the tenant", Fix: "have an admin enable Office 365 Exchange Online under Enterprise applications, and look at the subscription",
		Example: "AADSTS500014: The service principal for resource 'https://outlook.office365.com' is disabled."},
	{Code: "AADSTS70011", Class: mail.AccountFault, OAuthError: "invalid_scope",
		Cause: "the scope is not valid for this application", Fix: "remove scopes from [upstream.oauth], or check their spelling",
		Example: "AADSTS70011: The provided value for the input parameter 'scope' isn't valid. The scope https://example.contoso.com/activity.read isn't valid."},
	{Code: "AADSTS1002012", Class: mail.AccountFault, OAuthError: "invalid_scope",
		Cause: "client-credentials takes a scope that ends in /.default only", Fix: "remove scopes from [upstream.oauth]",
		Example: "AADSTS1002012: The provided value for scope https://outlook.office.com/SMTP.Send is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier."},

	// Microsoft: the tenant.
	{Code: "AADSTS90002", Class: mail.AccountFault, OAuthError: "invalid_request",
		Cause: "there is no tenant of this name", Fix: fixTenant + "; for a national cloud set cloud",
		Example: "AADSTS90002: Tenant 'contoso.onmicrosoft.example' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."},
	{Code: "AADSTS900023", Class: mail.AccountFault, OAuthError: "invalid_request",
		Cause: "tenant is neither a domain nor an id", Fix: fixTenant,
		Example: "AADSTS900023: Specified tenant identifier 'contoso' is neither a valid DNS name, nor a valid external domain."},
	{Code: "AADSTS50059", Class: mail.AccountFault, OAuthError: "invalid_request",
		Cause: "no tenant was named", Fix: fixTenant,
		Example: "AADSTS50059: No tenant-identifying information found in either the request or implied by any provided credentials."},
	{Code: "AADSTS50020", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the person who logged in belongs to another tenant", Fix: "log in with an account of tenant {tenant}; " + fixLogin,
		Example: "AADSTS50020: User account 'ann@example.com' from identity provider 'live.com' does not exist in tenant 'Contoso' and cannot access the application."},

	// Microsoft: the person.
	{Code: "AADSTS50034", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the account does not exist in the tenant any more", Fix: "log in with an account that exists; " + fixLogin,
		Example: "AADSTS50034: The user account does not exist in the directory. To sign into this application, the account must be added to the directory."},
	{Code: "AADSTS50053", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the account is locked after too many wrong logins, or the address of this machine is blocked", Fix: "unlock the account or wait; then " + fixLogin,
		Example: "AADSTS50053: The account is locked, you've tried to sign in too many times with an incorrect user ID or password."},
	{Code: "AADSTS50055", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the password of the account has expired", Fix: "set a new password at Microsoft, then " + fixLogin,
		Example: "AADSTS50055: The password is expired."},
	{Code: "AADSTS50057", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the account is disabled", Fix: "have an admin enable the account, then " + fixLogin,
		Example: "AADSTS50057: The user account is disabled."},
	{Code: "AADSTS50072", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "the account must enrol in multi-factor authentication", Fix: "log in to Microsoft in a browser once and enrol; then " + fixLogin,
		Example: "AADSTS50072: Due to a configuration change made by your administrator, you must enroll in multi-factor authentication to access '00000002-0000-0ff1-ce00-000000000000'."},
	{Code: "AADSTS50074", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "multi-factor authentication is asked for", Fix: fixLogin,
		Example: "AADSTS50074: Strong Authentication is required."},
	{Code: "AADSTS50076", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "multi-factor authentication is asked for, because an admin changed a policy or the network changed", Fix: fixLogin,
		Example: "AADSTS50076: Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '00000002-0000-0ff1-ce00-000000000000'."},
	{Code: "AADSTS50078", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "the multi-factor authentication of the account has expired", Fix: fixLogin,
		Example: "AADSTS50078: Presented multi-factor authentication has expired due to policies configured by your administrator."},
	{Code: "AADSTS50079", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "the account must enrol in multi-factor authentication", Fix: "log in to Microsoft in a browser once and enrol; then " + fixLogin,
		Example: "AADSTS50079: Due to a configuration change made by your administrator, or because you moved to a new location, you must enroll in multi-factor authentication to access the resource."},
	{Code: "AADSTS50105", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "the account is not assigned to the application", Fix: "have an admin assign it under Enterprise applications, application {client}, Users and groups",
		Example: "AADSTS50105: Your administrator has configured the application postern to block users unless they are specifically granted access."},
	{Code: "AADSTS50126", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "wrong user name or password", Fix: fixLogin,
		Example: "AADSTS50126: Error validating credentials due to invalid username or password."},
	{Code: "AADSTS50133", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the consent ended, because the password was changed or has expired", Fix: fixLogin,
		Example: "AADSTS50133: Session is invalid due to expiration or recent password change."},
	{Code: "AADSTS50173", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the consent was revoked, because the password was changed or an admin ended all sessions", Fix: fixLogin,
		Example: "AADSTS50173: The provided grant has expired due to it being revoked, a fresh auth token is needed."},

	// Microsoft: Conditional Access.
	{Code: "AADSTS53000", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "Conditional Access wants a compliant device", Fix: fixAccess,
		Example: "AADSTS53000: Device is not in required device state: compliant."},
	{Code: "AADSTS53001", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "Conditional Access wants a device joined to the domain", Fix: fixAccess,
		Example: "AADSTS53001: Device is not in required device state: domain_joined."},
	{Code: "AADSTS53003", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "Conditional Access blocks this login; many tenants block device-code as a whole", Fix: "try: postern upstream login {name} --flow authorization-code; or " + fixAccess,
		Example: "AADSTS53003: Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."},
	{Code: "AADSTS530003", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "Conditional Access wants a managed device", Fix: fixAccess,
		Example: "AADSTS530003: Your device is required to be managed to access this resource."},
	{Code: "AADSTS530034", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "security defaults or a delegated administrator's policy block this login", Fix: fixAccess,
		Example: "AADSTS530034: A delegated administrator was blocked from accessing the tenant due to account risk in their home tenant."},
	{Code: "AADSTS70043", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "Conditional Access limits how long a login lasts (sign-in frequency), and it is over", Fix: fixLogin + "; to end this for good " + fixAccess,
		Example: "AADSTS70043: The refresh token has expired or is invalid due to sign-in frequency checks by conditional access."},

	// Microsoft: consent and grants.
	{Code: "AADSTS65001", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "nobody has consented to the application", Fix: fixConsent,
		Example: "AADSTS65001: The user or administrator has not consented to use the application with ID '6731de76-14a6-49ae-97bc-6eba6914391e' named 'postern'."},
	{Code: "AADSTS65004", Class: mail.AccountFault, OAuthError: "access_denied",
		Cause: "the person declined", Fix: fixLogin + ", and accept",
		Example: "AADSTS65004: User declined to consent to access the app."},
	{Code: "AADSTS90094", Class: mail.AccountFault, OAuthError: "access_denied",
		Cause: "the tenant lets only admins consent", Fix: fixConsent,
		Example: "AADSTS90094: The grant requires admin permission."},
	{Code: "AADSTS70000", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the consent is not valid any more, or was given to another application", Fix: fixLogin,
		Example: "AADSTS70000: The provided grant is invalid or malformed."},
	{Code: "AADSTS70008", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the consent has expired", Fix: fixLogin,
		Example: "AADSTS70008: The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource."},
	{Code: "AADSTS700082", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the consent has expired, because it was not used for 90 days", Fix: fixLogin,
		Example: "AADSTS700082: The refresh token has expired due to inactivity. The token was issued on 2026-03-02T10:26:42.1060312Z and was inactive for 90.00:00:00."},
	{Code: "AADSTS700084", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause:   "the application is registered as a single page app, whose consent lives a day only",
		Fix:     "in App registrations, application {client}, Authentication, move the redirect URI to Mobile and desktop applications; then " + fixLogin,
		Example: "AADSTS700084: The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of 1.00:00:00, which can't be extended."},
	{Code: "AADSTS54005", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the code was used already", Fix: fixLogin,
		Example: "AADSTS54005: OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."},
	{Code: "AADSTS70018", Class: mail.AccountFault, OAuthError: "bad_verification_code",
		Cause: "the code was typed wrongly", Fix: fixLogin,
		Example: "AADSTS70018: Invalid verification code due to User typing in wrong user code for device code flow."},
	{Code: "AADSTS70020", Class: mail.AccountFault, OAuthError: "expired_token",
		Cause: "nobody entered the code in time", Fix: fixLogin,
		Example: "AADSTS70020: The provided value for the input parameter 'device_code' is not valid. This device code has expired."},

	// Microsoft: its own trouble.
	{Code: "AADSTS90033", Class: mail.BackPressure, OAuthError: "invalid_request",
		Cause: "Microsoft's login service has a passing problem", Example: "AADSTS90033: A transient error has occurred. Please try again."},
	{Code: "AADSTS90024", Class: mail.BackPressure, OAuthError: "invalid_request",
		Cause: "Microsoft's login service has a passing problem", Example: "AADSTS90024: RequestBudgetExceededError - A transient error has occurred. Try again."},
	{Code: "AADSTS90025", Class: mail.BackPressure, OAuthError: "invalid_request",
		Cause: "Microsoft's login service has a passing problem", Example: "AADSTS90025: Request processing has exceeded gateway allowance."},
	{Code: "AADSTS50196", Class: mail.BackPressure, OAuthError: "invalid_grant",
		Cause: "Microsoft's login service says that it is asked too often", Example: "AADSTS50196: The server terminated an operation because it encountered a client request loop."},

	// Google. Its "error" members are RFC 6749's; the text makes the difference.
	{Code: "invalid_grant", Text: "invalid_rapt", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause:   "the Workspace makes people log in again after some hours (Google Cloud session control)",
		Fix:     "have an admin exempt the app under Security, Google Cloud session control, Exempt trusted apps; then " + fixLogin,
		Example: "reauth related error (invalid_rapt)"},
	{Code: "invalid_grant", Text: "expired or revoked", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause:   "the consent has expired or was revoked; Google does that after a changed password, six months without use, and after 7 days while the app is in testing",
		Fix:     "publish the app (or make it Internal) in the Google Cloud console, then " + fixLogin,
		Example: "Token has been expired or revoked."},
	{Code: "invalid_grant", Text: "invalid email or user id", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "Google does not know the mailbox", Fix: "send as an address that is a mailbox of the Workspace; an alias or a group is not, so map it with username",
		Example: "Invalid email or User ID"},
	{Code: "invalid_grant", Text: "invalid jwt signature", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the key of the service account was deleted, or is another", Fix: "make a new JSON key for the service account and put it in service_account",
		Example: "Invalid JWT Signature."},
	{Code: "invalid_grant", Text: "short-lived token", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the clock here is wrong", Fix: "set the clock of this machine (NTP)",
		Example: "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."},
	{Code: "invalid_grant", Text: "account not found", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the service account does not exist any more", Fix: "make the service account again, or put the JSON key of another in service_account",
		Example: "Invalid grant: account not found"},
	{Code: "invalid_grant", Text: "account_disabled", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the account is suspended", Fix: "have an admin of the Workspace restore the account",
		Example: "Account has been disabled: account_disabled"},
	{Code: "unauthorized_client", Text: "using this method", Class: mail.AccountFault, OAuthError: "unauthorized_client",
		Cause:   "the service account has no domain-wide delegation for the mail scope",
		Fix:     "in the Google Admin console open Security, API controls, Domain-wide delegation, add the service account's client ID with the scope https://mail.google.com/ and wait some minutes",
		Example: "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."},
	{Code: "deleted_client", Class: mail.AccountFault, OAuthError: "deleted_client",
		Cause: "the OAuth client was deleted", Fix: "make a new one in the Google Cloud console, set client_id and client_secret, then " + fixLogin,
		Example: "The OAuth client was deleted."},
	{Code: "disabled_client", Class: mail.AccountFault, OAuthError: "disabled_client",
		Cause: "the OAuth client is disabled", Fix: "look at the OAuth client in the Google Cloud console",
		Example: "The OAuth client was disabled."},
	{Code: "admin_policy_enforced", Class: mail.AccountFault, OAuthError: "admin_policy_enforced",
		Cause: "the Workspace does not let this app use mail", Fix: "in the Google Admin console open Security, API controls, App access control, and trust application {client}",
		Example: "Access to your account data is restricted by policies within your organization."},
	{Code: "org_internal", Class: mail.AccountFault, OAuthError: "org_internal",
		Cause: "the app is internal to another Workspace", Fix: "log in with an account of the Workspace that owns the app; " + fixLogin,
		Example: "This client is restricted to users within its organization."},
	{Code: "rate_limit_exceeded", Class: mail.BackPressure, OAuthError: "rate_limit_exceeded",
		Cause: "the authorization server says that it is asked too often", Example: "Rate Limit Exceeded"},

	// Any server (RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core §3.1.2.6, RFC 8628 §3.5).
	{Code: "invalid_grant", Class: mail.AccountFault, OAuthError: "invalid_grant",
		Cause: "the consent is not valid any more: expired, revoked or given to another application", Fix: fixLogin,
		Example: "The refresh token is invalid"},
	{Code: "invalid_client", Class: mail.AccountFault, OAuthError: "invalid_client",
		Cause: "the authorization server does not accept the application's client_id or secret", Fix: "check client_id and client_secret in [upstream.oauth] for {name}",
		Example: "The OAuth client was not found."},
	{Code: "unauthorized_client", Class: mail.AccountFault, OAuthError: "unauthorized_client",
		Cause: "the application may not use this flow", Fix: "allow the flow where the application is registered, or choose another in [upstream.oauth] for {name}",
		Example: "Unauthorized"},
	{Code: "unsupported_grant_type", Class: mail.AccountFault, OAuthError: "unsupported_grant_type",
		Cause: "the authorization server does not know this flow", Fix: "choose another flow in [upstream.oauth] for {name}, and check token_url",
		Example: "Invalid grant_type"},
	{Code: "invalid_scope", Class: mail.AccountFault, OAuthError: "invalid_scope",
		Cause: "the authorization server does not give this scope", Fix: "check scopes in [upstream.oauth] for {name}",
		Example: "Some requested scopes were invalid"},
	{Code: "access_denied", Class: mail.AccountFault, OAuthError: "access_denied",
		Cause: "the person, or a policy, declined", Fix: fixLogin + ", and accept",
		Example: "The resource owner or authorization server denied the request."},
	{Code: "interaction_required", Class: mail.AccountFault, OAuthError: "interaction_required",
		Cause: "the authorization server wants to see the person again", Fix: fixLogin,
		Example: "Interaction is required"},
	{Code: "consent_required", Class: mail.AccountFault, OAuthError: "consent_required",
		Cause: "nobody has consented to the application", Fix: fixLogin,
		Example: "Consent is required"},
	{Code: "login_required", Class: mail.AccountFault, OAuthError: "login_required",
		Cause: "the authorization server wants to see the person again", Fix: fixLogin,
		Example: "Login is required"},
	{Code: "expired_token", Class: mail.AccountFault, OAuthError: "expired_token",
		Cause: "nobody entered the code in time", Fix: fixLogin,
		Example: "The device_code has expired"},
	{Code: "temporarily_unavailable", Class: mail.BackPressure, OAuthError: "temporarily_unavailable",
		Cause: "the authorization server is overloaded or under maintenance", Example: "AADSTS90099: The service is temporarily unavailable."},
	{Code: "server_error", Class: mail.BackPressure, OAuthError: "server_error",
		Cause: "the authorization server has a problem of its own", Example: "Internal failure"},
	{Code: "slow_down", Class: mail.BackPressure, OAuthError: "slow_down",
		Cause: "the authorization server says that it is asked too often", Example: "Polling too frequently"},
	{Code: "authorization_pending", Class: mail.BackPressure, OAuthError: "authorization_pending",
		Cause: "the person has not consented yet", Example: "AADSTS70016: OAuth 2.0 device flow error. Authorization is pending. Continue polling."},
}
