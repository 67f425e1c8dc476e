// Package policy decides who may send as whom, to whom, and how much. It knows logins, addresses and numbers, and does
// no I/O except through a LimitStore or SharedLimits.
//
// # Rules
//
// A Policy is a list of rules. Each setting comes from the first matching rule that sets it, as in ssh_config. A rule
// matches if each of its conditions (logins, groups, listeners, networks) has a value that matches. The defaults are:
// senders {login}, all recipients, no limits, refuse unlisted senders, defer over a limit.
//
// # Addresses
//
// Comparing local parts ignores ASCII case, although RFC 5321 §2.4 leaves it to the receiving host: people and devices
// write Mixed.Case@Example.com, providers treat both as one mailbox, and none is known to give two people addresses
// that differ only in case. Other letters must be equal, so that no Unicode rule makes one address match another.
// Domains are compared in lower case as A-labels. A null reverse-path is no address: MaySend and RecipientAllowed
// refuse it; the session decides whether a login may use it.
//
// # Limits
//
// A limit is a token bucket that starts full: it allows its count at once and refills evenly over its window. In any
// period t it therefore allows at most count × (1 + t/window): at most twice the count in one window, and the count in
// the long run. A bucket belongs to a login and a limit; changing a limit in relay.toml starts a new one.
//
// # Failure semantics
//
// Take counts against all limits of a login or none. Buckets are saved every two seconds and at Close; at start they
// are refilled for the time that has passed. A restart forgets nothing, a crash at most two seconds. If saving fails,
// the limits carry on in memory and the error is logged. If the store cannot say which recipients are new, Take returns
// a temporary error. The number of buckets is bounded: over the bound, the fullest of the longest unused is dropped.
//
// Where nodes share a counter (SharedLimits), that one decides. If it does not answer, Take returns a temporary error
// or, if so configured, lets pass what fits into a local share, which is counted later (decision 0046).
package policy
