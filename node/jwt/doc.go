// Package jwt verifies JWTs of trusted issuers (RFC 7515, 7519, 9068) and reads sets of public keys
// (RFC 7517).
//
// [Parse] checks the form of a token and reads the claims that select an issuer and a key.
// [Verifier.Verify] checks the signature and the claims. Its [Result] separates two questions:
// whether the issuer made the token, which is enough to revoke it, and whether the token may be
// active.
//
// The package accepts one encoding of each token. A second encoding would have another digest and
// would escape a revocation of the first. ECDSA has a second valid signature for every token, (r,
// n-s). The token with that signature is the twin: [Token.Twin] returns its digest, and callers
// look up both digests.
//
// The package never fetches a key: jku, x5u and jwk in a header have no effect. The header does not
// decide which algorithm is allowed either: it must name one that the issuer and the key allow. The
// package reads no clock, starts no goroutine and keeps no state. Its functions may be called
// concurrently.
//
// Dangerous: a [Token] contains the raw token, and the getters of a Token return unverified claims
// of its sender. Trust only the JWT in a verified Result.
package jwt
