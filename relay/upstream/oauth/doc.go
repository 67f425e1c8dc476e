// Package oauth obtains the access tokens that XOAUTH2, OAUTHBEARER and Microsoft Graph use. It owns the conversation
// with one authorization server for one upstream: client credentials by secret or certificate, device code,
// authorization code with PKCE, refresh tokens, and Google's service accounts. It knows nothing of SMTP.
//
// A Source caches one access token, or one for each identity if the flow issues tokens per mailbox. It fetches early,
// once for all callers, and hands out a token for as long as it is valid.
//
// Failure semantics:
//   - Every error of a Source is an *Error. Its class is mail.BackPressure (the authorization server or our store is in
//     trouble; it passes) or mail.AccountFault (secret, certificate, consent or configuration; an administrator must
//     act, and Fix says how). Neither is ever a message's fault.
//   - Errors are cached: until Error.Retry the server is not asked again, and callers get the same error at once.
//   - Token returns within 30 s whatever the server does. A valid token is returned at once, even while the server is
//     down.
//   - When the server replaces a refresh token, the new one is durable before the access token that came with it is
//     used. If the store fails in between, the pair stays in memory, saving is retried, and the error is temporary.
//   - Nodes that share a store take turns at a rotating grant, by a short lease inside the grant itself.
//   - Secrets and tokens have type Secret, which no verb of fmt, no logger and no encoder prints. No error contains
//     what was sent.
package oauth
