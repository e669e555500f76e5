// Package revoked holds the domain types that every package of the cluster shares: token digests,
// grants, clients, settings, cut-offs, feed events and sentinel errors. Only [Decide] determines
// whether a token is active. [ValidateClient] and [ValidateSettings] are the only validators of
// replicated records.
//
// The package does no I/O, starts no goroutine and reads no clock: the current time is always an
// argument. Raw tokens exist in one HTTP handler only. This package, like all code below the
// handlers, sees only the digests of tokens.
package revoked
