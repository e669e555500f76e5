// Package propose appends operations to the replicated log. It batches them into entries, forwards
// them to the leader, and runs read barriers, which prove that this node is current.
//
// An error wrapping revoked.ErrNoLeader guarantees that nothing was proposed. After
// revoked.ErrOutcomeUnknown the operation may or may not be applied; every operation is idempotent,
// so a retry is safe.
//
// Bulk registrations use the capacity that other callers leave. They go into separate entries,
// whose size is limited by the time that applying them takes. See DESIGN.md.
//
// A read barrier is a proposal without operations. After it, this node has applied every change
// acknowledged before the call: the barrier's entry was proposed after the call and has committed.
// No other function of hashicorp/raft guarantees that: see DESIGN.md of package node. Barriers for
// lookups of unknown tokens are paced per caller, because anyone can make up such tokens.
package propose
