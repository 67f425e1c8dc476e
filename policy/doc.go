// Package policy decides who may send as whom, to whom, and how much. It knows logins, addresses and
// numbers; it does no input or output except through a LimitStore.
//
// # Rules
//
// A Policy is a list of rules. For each setting on its own, the first rule that matches and sets it
// wins, as in ssh_config. A rule matches when every condition that it has (logins, groups, listeners,
// networks) is met by one of its values. What no rule sets is: senders {login}, recipients everybody,
// no limits, refuse unlisted senders, defer over a limit.
//
// # Addresses
//
// Local parts are compared without regard to ASCII case, although RFC 5321 §2.4 leaves them to the
// receiving host: people and devices write Mixed.Case@Example.com, providers treat both as one mailbox,
// and nobody is known who gives two persons addresses that differ in case only. Other letters are
// compared as they are, so that no Unicode rule makes one address into another. Domains are compared
// in lower case as A-labels. A null reverse-path is no address: MaySend and RecipientAllowed refuse it;
// whether a login may use it is the session's matter.
//
// # Limits
//
// A limit is a token bucket that begins full: it allows its count at once and refills evenly over its
// window. So in any stretch of time t at most count × (1 + t/window) passes, which for one window is
// at most twice the count and in the long run the count. Buckets belong to a login and a limit; a limit
// that is changed in relay.toml begins anew.
//
// # Failure semantics
//
// Taking is all or nothing over the limits of a login. States are saved every two seconds and at Close,
// and what passed meanwhile is refilled at start: a restart gives nothing away, a crash what was taken
// in the last two seconds. If saving fails, limits go on in memory and the error is logged. If the
// store cannot say which recipients are new, Take returns the error: temporary. The number of buckets
// is bounded; above it the one is dropped that has the least to forget, a full one if there is any near.
package policy
