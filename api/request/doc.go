// Package request is one HTTP request and its response, as the handlers of package api see it. It
// reads bodies, queries and ids in the path, and it is the only writer of errors.
//
// It promises:
//   - A body is bounded before it is read and cleared after it is decoded.
//   - Errors of the OAuth endpoints have the shape of RFC 6749 section 5.2, all others that of RFC
//     9457. [FailureOf] maps an error to both.
//   - An error without a row in errors.go is an opaque 503. Its text reaches only the log.
//
// It never repeats input in an answer of an OAuth endpoint. It does not depend on the endpoints: it
// does not import package api.
//
// Dangerous: echo's Bind and FormValue mix the query into the body. Handlers use the methods of
// [Request] only.
package request
