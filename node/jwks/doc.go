// Package jwks schedules and performs fetches of the key sets that issuers publish (RFC 7517
// section 5).
//
// A [Fetcher] connects only to addresses that the configuration of the node allows, regardless of
// DNS. The URI comes from the API, so without this rule an administrator could make the node
// connect to internal servers in its network. A Fetcher follows no redirect, uses no proxy from the
// environment, and limits the time and memory of a fetch. A [Schedule] decides when the next fetch
// is due; it is pure. A [Runner] fetches the keys of all issuers while the node leads.
//
// The package writes keys only through RunnerConfig.Store. A failed fetch changes nothing: the
// caller keeps the keys that it has.
//
// Dangerous: errors reach administrators and the log, so they contain no text that the server
// chose.
package jwks
