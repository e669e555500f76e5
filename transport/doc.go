// Package transport implements the single port on which the nodes of a cluster communicate, with
// mutual TLS 1.3. ALPN separates Raft's stream layer ("revoked-raft/1") from calls between nodes
// ("revoked-frames/1"; "h2" with nodes of version 0.3).
//
// Guarantees:
//
//   - Two processes exchange Raft messages or calls only if both have a certificate of the
//     cluster's CA that names a node. The dialing side must have reached the intended node and, for
//     Raft, the intended instance of that node. A node that has lost its disk is a new instance.
//   - A connection is closed when the peer's certificate expires, or when the CA of that
//     certificate is removed.
//   - Handshakes, connections, frames, bodies and headers are limited, and a silent peer is
//     detected within seconds. No operation blocks forever.
//   - Unauthenticated connections cannot keep nodes out: see admission.go.
//
// The package never decides who is a member (Config.AllowRaft does), never follows a redirect, and
// never retries a call whose outcome is unknown. It keeps no session tickets: a ticket would remain
// usable after its CA is removed.
//
// The Raft transport notifies followers of a commit without waiting for the next entry: see
// saferaft.
//
// Dangerous to change: the Raft transport ignores SetHeartbeatHandler. With the fast path, a
// deposed leader can write an entry in a term that it does not lead. The logs then diverge
// permanently (saferaft, heartbeat_test.go).
package transport
