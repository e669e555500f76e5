// Package request represents one HTTP request and its response for the handlers of package api. It
// reads bodies, queries and ids in the path, and is the only package that writes errors.
//
// The package guarantees:
//   - A body is bounded before it is read and cleared after it is decoded.
//   - Errors of the OAuth endpoints have the shape of RFC 6749 section 5.2, all others that of RFC
//     9457. [FailureOf] maps an error to both.
//   - An error without a row in errors.go is an opaque 503. Its text reaches only the log.
//
// It never quotes input in a response of an OAuth endpoint. It does not depend on the endpoints: it
// does not import package api.
//
// Dangerous: echo's Bind and FormValue mix the query into the body. Handlers use the methods of
// [Request] only.
package request
