// Package clientauth authenticates OAuth clients. A client uses its id and secret (RFC 6749 section
// 2.3.1), an assertion (RFC 7523), or the certificate of the connection (RFC 8705).
//
// An assertion authenticates one request at a node. The package remembers a used assertion until it
// expires. At its bounds, the package refuses new assertions and does not forget old ones. Each
// request looks up the key or the certificate in the client's current record, so no result outlives
// a change of the record. The package charges failures to the client, as it does for secrets.
//
// A correct secret is accepted even while others guess. A strong secret passes immediately, and so
// does a weak one that its address has used before. A weak secret that is new to an address waits
// in the queue of the client, which serves addresses in turn. All attempts of one address share its
// turns.
//
// Every other attempt costs its client ids a failure before argon2id runs, so concurrent guesses
// cannot exceed the budget. Over the budget a node verifies four attempts a second at one client
// id. An unknown client and a wrong secret return the same error, after about the same time. A
// failure that needs no argon2id waits for as long as one computation takes.
//
// Secrets are compared in constant time and are never stored. The package keeps salted hashes. It
// remembers argon2id results under HMACs, whose key is random and known only to this process.
//
// Known weakness: while all argon2id slots are in use, a wrong weak secret takes longer than an
// unknown client. An attacker at an address that the client itself uses is not slowed once this
// node has verified the correct secret.
package clientauth
