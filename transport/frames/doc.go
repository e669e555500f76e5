// Package frames carries calls and streams between two nodes over one connection, as
// length-prefixed frames. A small call costs a node less than over HTTP/2: it has no header block,
// and takes one write and fewer goroutines.
//
// A connection is either for calls, any number at a time, or for one stream. The accepting side
// sends first: its hello shows the dialing side that the connection was accepted. message.go has
// the format.
//
// Guarantees:
//
//   - Sizes, calls in progress and their bodies are limited. Memory use grows with the bytes
//     received, not with announced sizes.
//   - The connection ends if the peer is silent or does not read. See [Limits].
//   - No call is retried. [ErrNotSent] means that the peer cannot have received the call.
//
// The caller does TLS and authenticates the peer.
package frames
