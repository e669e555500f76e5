// Package frames carries calls and streams between two nodes over one connection, as frames with a
// length. A small call costs a node less than over HTTP/2: it has no header block, and takes one
// write and fewer goroutines.
//
// A connection is either for calls, any number at a time, or for one stream. The accepting side
// speaks first: its hello shows the dialing side that it was accepted. message.go has the bytes.
//
// It promises:
//
//   - Sizes, calls in progress and their bodies are limited. A frame allocates what has arrived.
//   - A peer that is silent, or does not read, ends the connection. See [Limits].
//   - Nothing is repeated. [ErrNotSent] means that the peer cannot have received the call.
//
// The caller does TLS and decides who the peer is.
package frames
