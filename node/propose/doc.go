// Package propose appends operations to the replicated log. It batches them into entries, forwards
// them to the leader, and runs read barriers, which show that this node is current.
//
// An error wrapping revoked.ErrNoLeader guarantees that nothing was proposed. After
// revoked.ErrOutcomeUnknown the operation may or may not be applied; every operation is idempotent,
// so a retry is safe.
//
// Bulk registrations use the capacity that other callers leave. They have entries of their own,
// bounded by the time that applying takes. See DESIGN.md.
//
// A read barrier is a proposal without operations. After it, every change acknowledged before the
// call is applied here, because its entry is proposed after the call and commits. No other call of
// Raft guarantees that: see DESIGN.md of package node. The barriers of lookups of unknown tokens
// are paced by caller, because anyone can make up such tokens.
package propose
