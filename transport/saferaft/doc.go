// Package saferaft is the network transport of hashicorp/raft with its unsafe parts replaced. It
// does not depend on TLS or certificates: its Stream provides verified connections.
//
// Guarantee: each message that this package inserts, changes or delays is one that Raft itself
// could have sent or received at that moment. So the package can affect the speed of Raft, but not
// its safety. Pipelining and the fast path of heartbeats would break this guarantee: see Transport.
package saferaft
