// Package transport is the one port on which the nodes of a cluster speak to each other: mutual TLS
// 1.3, split by ALPN into Raft's stream layer ("revoked-raft/1") and calls between nodes ("h2").
//
// It promises that no byte of Raft and no call passes between two processes unless both hold a
// certificate of the cluster's CA that names a node, that the one who dialled reached the node that
// it meant, for Raft with the disk that it meant, and that no connection outlives the certificate that
// opened it. Handshakes, connections, frames, bodies and headers are bounded, and a peer that falls
// silent without closing is noticed within seconds: nothing here waits for ever.
//
// It never decides who is a member (that is asked of Config.AllowRaft), never follows a redirect,
// never repeats a call whose outcome is unknown, and keeps no session tickets, which would outlive a
// CA that was taken away.
//
// Raft's own errors of replication are held back while a peer is out of reach, for as long as this node
// leads and replicates to it (outage.go).
//
// Dangerous to change: the Raft transport that it hands out ignores SetHeartbeatHandler. With the
// fast path a deposed leader can write an entry under a term that it does not lead, and the copies
// diverge for good (see raft.go and heartbeat_test.go).
package transport
