// Package revoked holds the words that every floor of the cluster shares: token digests, grants,
// clients, cut-offs, the sentinels, and [Decide], the one function that says whether a token is
// active.
//
// It does no I/O, starts no goroutine and reads no clock: time is always an argument.
// A raw token exists in one HTTP handler only; here and below there are digests.
package revoked
