// Package oauth gets from the configuration of an upstream to the access token that XOAUTH2 and OAUTHBEARER send. It
// owns the conversation with one authorization server for one upstream: client credentials by secret or certificate,
// device code, authorization code with PKCE, refresh tokens, and Google's service accounts. It knows nothing of SMTP.
//
// A Source keeps one access token, or one for each identity where the flow makes tokens for a mailbox. It fetches
// early, once for all that wait, and hands out what it has for as long as that is valid.
//
// Failure semantics:
//   - Every error of a Source is an *Error. Its class is mail.BackPressure (the authorization server or our store is in
//     trouble; it passes) or mail.AccountFault (secret, certificate, consent or configuration; a person mends it, and
//     Fix says how). Neither is ever a message's fault.
//   - A trouble is remembered: until Error.Retry nobody is asked again, and callers get the same error at once.
//   - Token returns within 30 s whatever the server does. A valid token is returned at once, even while the
//     server is down.
//   - A refresh token that the server has replaced is durable before the access token that came with it is used. When
//     the store fails in between, the pair is kept in memory, saving is tried again, and the error is temporary.
//   - Nodes that share a store take turns at a rotating grant by a short lease inside the grant itself.
//   - Secrets and tokens are of type Secret, which no verb of fmt, no logger and no encoder prints. No error carries
//     what was sent.
package oauth
