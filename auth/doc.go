// Package auth finds out who a client is: SASL exchanges, credential sources asked in order, a cache of
// verified credentials, and the lockout of those who guess. The store's source is here; those of files, directories,
// Dovecot and programs are packages below.
//
// App passwords are no source: they are looked up before any is asked, by their HMAC, and what the source of their
// login says of it now still holds. Locks of logins hold whichever source has the account, for app passwords, tokens and
// certificates too.
//
// # Failure semantics
//
// Every refusal is a *mail.Error. Whatever is wrong with a credential (unknown login, wrong password, locked login,
// lockout, client outside the login's networks), the client gets the same reply, 535 5.7.8; the reason stays in the
// error, for log and trace. Trouble of our own (a source that is down, too many hashes waiting) is 454 4.7.0; it is not
// cached and counts towards no lockout. A source that is down ends the search: it may be the one that knows the login.
// It is then left alone for one second to 30, and who was verified within its StaleOK gets in meanwhile.
//
// # Time
//
// Every refused credential costs one argon2id, so that time tells nothing: neither whether the login exists or is
// locked, nor whether its password was right but used outside its networks, nor whether it was chosen or generated.
// Three cases are answered without hashing, and reveal nothing about a login: a password over MaxLength, a credential
// refused a moment ago, and a client that is locked out. At most HashParallel hashes run at once, and the wait for one
// is bounded. Each source that hashes does its work for each refusal, whoever refuses. What remote sources do cannot be
// made equal: where one is configured, refusals leave at full half seconds from their arrival, and a slow one tells no
// more than in which half second it fell. While a source is down, 454 tells that no source before it knows the login.
//
// SCRAM costs nothing, refused or not; what it tells of a login before the proof is the same whether there is one.
//
// # Lockout
//
// What counts is the number of distinct wrong passwords within a window: a mail client with one old password fails many
// times, a guesser fails once per guess. Of SCRAM each wrong proof counts, since no two are the same; of tokens and
// certificates each distinct one, for the address alone. The counters:
//
//   - per address (IPv4 /32, IPv6 /64), over all logins: one place that guesses; a wider one per IPv6 /48;
//   - per login, over all addresses: several networks that guess one login. No single network fills it;
//   - per pair of a login and an address from which it recently logged in. A failure of such a pair
//     counts here and nowhere else.
//
// A full counter locks for the configured duration. An outsider cannot use this to lock out a login's own users: a lock
// never stops (1) a credential in the verified cache, (2) a password that was right before, even if its cache entry has
// expired: it is verified again, (3) a pair whose own counter is not full, (4) a correct generated password, such as an
// app password: 99 bits or more cannot be guessed, and comparing them costs nothing.
// docs/decisions/0004-lockout.md says what remains open.
//
// Everything keyed by an outsider is bounded by an LRU. Locks, and the places that logins were used from, survive a
// restart if the caller saves what Unsaved returns and gives it to Restore.
package auth
