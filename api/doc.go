// Package api is the HTTP face of a node: the OAuth endpoints (RFC 7009, 7662, 8414), the admin and
// issuer API under /v1, forward authentication, health and metrics.
//
// It promises that a 200 to a revocation is written only after [Revoker.Revoke] returned without an
// error, that every error it does not know is an opaque 503, and that every answer of an OAuth
// endpoint is JSON which repeats nothing of the request.
//
// It never writes a raw token or a secret anywhere: a token is digested in the handler that read it
// and its buffer is cleared; log lines, metrics and errors carry neither tokens nor query strings. It
// knows no Raft and decides nothing about a token: that is [revoked.Decide]'s.
//
// What is dangerous: http.Request.Form and echo's FormValue and Bind mix the query string into the
// body, so no handler here may use them; and an echo middleware on a group turns 405 into 404, so
// middleware is global or on a route.
package api
