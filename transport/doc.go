// Package transport is the single port on which the nodes of a cluster communicate, with mutual TLS
// 1.3. ALPN separates Raft's stream layer ("revoked-raft/1") from calls between nodes
// ("revoked-frames/1"; "h2" with nodes of version 0.3).
//
// It promises:
//
//   - Two processes exchange a byte of Raft or a call only if both hold a certificate of the
//     cluster's CA that names a node. The dialing side must have reached the node that it meant;
//     for Raft, it must also have reached the instance, which is the disk.
//   - A connection is closed when the certificate that opened it expires or the CA is removed.
//   - Handshakes, connections, frames, bodies and headers are limited, and a silent peer is
//     detected within seconds. No operation blocks forever.
//   - Unauthenticated connections cannot keep nodes out: see admission.go.
//
// It never decides who is a member (Config.AllowRaft does), never follows a redirect, and never
// repeats a call whose outcome is unknown. It keeps no session tickets, which would outlive a
// removed CA.
//
// The Raft transport notifies followers of a commit without waiting for an entry: see saferaft.
//
// Dangerous to change: the Raft transport ignores SetHeartbeatHandler. With the fast path, a
// deposed leader can write an entry in a term that it does not lead. The logs then diverge
// permanently (saferaft, heartbeat_test.go).
package transport
