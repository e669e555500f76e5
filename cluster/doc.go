// Package cluster is gossip: which nodes are there, at which addresses, in which region, of which
// version.
//
// It promises a hint and nothing more. What it says is never evidence for a verdict, a lease or an
// acknowledgement, changes no membership and moves no address that Raft dials: whoever holds the
// gossip key can say anything here. It makes listings nicer and finds neighbours.
//
// Every packet is encrypted with AES-256 and bound to the cluster's id; a node with another key or
// of another cluster is not heard, and the log says what to correct. Nothing secret travels in it.
//
// Dangerous to change: the delegates run on the goroutines that detect failures. They touch a map
// and return.
package cluster
