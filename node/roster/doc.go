// Package roster keeps the membership of a cluster: joining, leaving, removal, voters, leadership
// transfers, the report streams from members to the leader, and gossip.
//
// Membership is the Raft configuration. The package changes it only while this node leads, one
// change at a time. It removes a server only after every read lease that the server may hold has
// ended.
//
// A new name joins only with an admission or a join token (admission.go). At most one instance of a
// node votes (rules.go). The package never removes or demotes a server on its own, with two
// exceptions. It removes silent instances of a node that came back with an empty disk, and demotes
// a voter that must not vote. Gossip informs operators; no decision depends on it.
//
// A server that is removed without waiting for its lease could serve a revoked token. Every change
// goes through turn.propose, every removal through turn.remove. DESIGN.md gives the reasons.
package roster
