// Package cluster runs gossip, which lists the nodes with their addresses, regions and versions.
//
// It promises only hints. Any holder of the gossip key can forge its data. So the data is never
// evidence for a verdict, a lease or an acknowledgement, and never changes membership or an address
// that Raft dials. It improves listings and finds neighbors.
//
// Every packet is encrypted with AES-256 and bound to the cluster's id. A node with another key or
// of another cluster is ignored, and the log names the remedy. Gossip carries no secrets. Handling
// a message allocates about its own size, even if an attacker sends it. Waiting connections are
// limited.
//
// Dangerous to change: memberlist calls the delegates on the goroutines that detect failures. They
// must not block.
package cluster
