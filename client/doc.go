// Package client calls the HTTP API of a revoked cluster: it revokes, introspects and registers
// tokens, and administers clients and the cluster.
//
// A [Client] has the addresses of one or more nodes. It tries the next one if a node cannot be
// reached in time, or answers 503 to a call that is safe to retry. A call that must not happen
// twice is sent to one node only: if its outcome is unknown, the caller gets the error.
//
// A client authenticates by a secret, by a key (private_key_jwt, RFC 7523) or by a TLS certificate
// (RFC 8705). With a key it signs a new assertion for each attempt of a call.
//
// It sends credentials over HTTPS only and follows no redirects. Its errors never contain a token
// or a secret that it was given.
package client
