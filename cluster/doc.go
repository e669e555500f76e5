// Package cluster runs gossip, which lists the nodes with their addresses, regions and versions.
//
// Gossip data is only a hint, because any holder of the gossip key can forge it. So it is never
// evidence for a verdict, a lease or an acknowledgement, and never changes membership or an address
// that Raft dials. It only completes lists of nodes and lets a node find other nodes.
//
// Every packet is encrypted with AES-256 and bound to the cluster's id. A node with another key or
// of another cluster is ignored, and the log names the remedy. Gossip carries no secrets. Handling
// a message allocates about its own size, even if an attacker sends it. Waiting connections are
// limited.
//
// Dangerous to change: the delegates must not block, because memberlist calls them on the
// goroutines that detect failures.
package cluster
