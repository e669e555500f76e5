// Package api is the HTTP interface of a node. It serves the OAuth endpoints (RFC 7009, 7662,
// 8414), the admin and issuer API under /v1, forward authentication, health and metrics.
//
// The package guarantees:
//   - A revocation gets 200 only after [tokens.Backend] reported that it is final.
//   - An error without a row in request/errors.go is an opaque 503.
//   - Errors of the OAuth endpoints are JSON and do not quote input.
//   - A refused call by an administrator or operator that could have changed something is recorded
//     before it is answered, within limits. Apply records accepted calls.
//
// It never logs or stores a raw token or a secret. A handler digests the token that it reads and
// clears the buffer. Log lines, metrics and errors do not contain tokens or query strings. The
// package does not depend on Raft. [revoked.Decide] evaluates tokens.
//
// [API.middleware] runs the handler of a route. Package access authenticates the caller. A handler
// decodes the request with package request and calls the [Backend] once. It then writes the answer
// or returns an error, for which the middleware writes the answer. The endpoints that receive a
// presented token are in package tokens.
//
// Routes call handlers, handlers call packages tokens, access and registration, and these call
// package request. No package below imports api.
//
// http.Request.Form and echo's FormValue and Bind mix the query into the body, so no handler may
// use them. Echo's middleware on a group turns 405 into 404, so the package uses no groups.
package api
