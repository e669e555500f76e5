// Package node runs one member of the cluster. It connects Raft and its stores, the read leases,
// the record cache, the proposals and the membership. Each part has its own lock.
//
// Promise: a call that revokes tokens, such as a revocation, returns nil only once two conditions
// hold. The change is committed, and no node can still report the token as active. After an error
// wrapping revoked.ErrOutcomeUnknown the change may or may not be applied; a retry is safe.
//
// A node never answers on the assumption that it leads. State, LastContact and VerifyLeader of
// hashicorp/raft may be outdated. Only an entry that was proposed after the request and committed
// proves which node leads. See DESIGN.md.
//
// Dangerous to change: a cached record must never outlive a change (package cache). The applied
// index must be published only after the state and the cache epochs have changed (package fsm).
package node
