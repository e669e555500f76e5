// Package saferaft is the network transport of hashicorp/raft with its unsafe parts replaced. It
// does not depend on TLS or certificates: its Stream provides verified connections.
//
// Promise: whatever this package inserts, changes or delays is a message that Raft itself could
// have sent or received at that moment. So it can slow Raft down or speed it up, but not make it
// unsafe. With pipelining and the fast path of heartbeats that would not hold: see Transport.
package saferaft
