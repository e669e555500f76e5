// Package jwks schedules and makes the fetches of the key sets that issuers publish (RFC 7517
// section 5).
//
// A [Fetcher] connects only to addresses that the configuration of the node allows, regardless of
// DNS. The URI comes from the API: without this rule, an administrator of tokens could reach into
// the node's network. It follows no redirect and uses no proxy from the environment. It bounds time
// and memory. A [Schedule] is pure and decides when the next fetch is due. A [Runner] fetches for
// all issuers, while the node leads.
//
// The package writes keys only through RunnerConfig.Store. A failed fetch changes nothing: the
// caller keeps the keys that it has.
//
// Dangerous: errors reach administrators and the log, so they contain no text that the server
// chose.
package jwks
