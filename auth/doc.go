// Package auth finds out who a client is: SASL exchanges (PLAIN, LOGIN), credential sources asked in
// order, a cache of verified credentials, and the lockout of those who guess.
//
// # Failure semantics
//
// Every refusal is a *mail.Error. Whatever is wrong with a credential (unknown login, wrong password,
// locked login, lockout, client outside the login's networks) is answered with one text, 535 5.7.8, and
// its reason stays inside the error for the log and the trace. Trouble of ours (a source that is down,
// too many hashes waiting) is 454 4.7.0, is not remembered and is not held against anybody.
//
// # Time
//
// A refused credential costs one argon2id, whether the login is unknown, locked, known, or right but used outside its
// networks, and whether its password was chosen or generated. The exceptions say nothing about a login: passwords over
// MaxLength, a credential refused a moment ago, and clients that are locked out, all of which are
// answered without hashing. Hashing is bounded to HashParallel at once with a bounded wait.
//
// # Lockout
//
// What counts is the number of distinct wrong passwords within a window, because a mail client with
// one old password fails many times and a guesser fails once per guess. The counters:
//
//   - per address (IPv4 /32, IPv6 /64), over all logins: one place that guesses; a wider one per IPv6 /48;
//   - per login, over all addresses: several networks that guess one login. No one network fills it;
//   - per pair of a login and an address from which it recently logged in. A failure of such a pair
//     counts here and nowhere else.
//
// A full counter locks for the configured duration. No outsider can thereby take a login from those
// who use it: a lock never stops (1) a credential in the verified cache, (2) a password that was right
// before, even when its cache entry has run out: it is verified again, (3) a pair whose own counter is
// not full, (4) a generated password that is right: 99 bits or more cannot be guessed, and comparing them
// costs nothing. What remains open is in docs/decisions/0004-lockout.md.
//
// Everything that an outsider can key is bounded by an LRU. Locks, and from where logins were used, outlive the process
// where the caller saves what Unsaved returns and gives it to Restore.
package auth
