// Package enroll is the protocol by which a node without a certificate gets one with a join token.
//
// The protocol has its own ALPN name on the cluster port ("revoked-enroll/1"), TLS 1.3 and no
// client certificate. The node identifies the CA by the hash in its token. The handshake fails
// before the node sends anything, unless the member presents that CA and a node's certificate under
// it. Then the node sends one request and gets one answer. The request is signed with the key of
// the token. The signature covers a value of the connection, so the request is invalid on any other
// connection.
//
// A server reads at most 16 KiB of a request, and serves few connections concurrently, each for a
// short time. The issue function that NewServer receives decides on requests, not the server.
//
// DESIGN.md has the reasons.
package enroll
