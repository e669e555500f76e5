// Package serve runs an HTTP server whose port accepts TLS and plain HTTP.
//
// The listener detects TLS by the first byte of a connection and finishes the handshake before
// net/http sees the connection. The package limits the number of connections, requests and streams,
// the size of headers, and the time for each step. It reloads the certificate. It notifies handlers
// three facts that net/http hides. [AmbiguousLength] reports a request with Content-Length and
// Transfer-Encoding, [Refused] a limit that the request exceeds, and [UntilShutdown] the beginning
// of a shutdown. DESIGN.md explains the limits.
//
// It does not depend on routes and does not require TLS: a handler that needs TLS checks
// http.Request.TLS.
package serve
