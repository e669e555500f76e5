// Package node is one member of the cluster: Raft and its stores, batching and forwarding of writes,
// the read leases under which answers are current, the record cache, and membership.
//
// What it promises: a method of [Node] that returns nil from a revocation, a cut-off, a deletion or a
// change of a client returns only after the change is committed and no node can still answer "active"
// against it. An error wrapping revoked.ErrOutcomeUnknown says that the change may or may not have
// happened; repeating it is always safe.
//
// What it never does: answer from belief. State() == Leader, LastContact and VerifyLeader of
// hashicorp/raft prove nothing about the present; the only proof of leadership used here is an entry
// that was proposed afterwards and committed. See DESIGN.md.
//
// What is dangerous: anything that would let a cached record outlive a change (cache.go), and any
// path that publishes an applied index before the state and the cache epochs have moved (fsm).
package node

//go:generate sh -c "cd .. && protoc -I . --go_out=. --go_opt=module=revoked node/rpc.proto"
