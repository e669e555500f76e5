// Package datadir manages the identity of a data directory: its lock, the name of its instance, and
// the cluster that it belongs to.
//
// Guarantees: two processes never use one directory. A node never starts as its old instance if its
// log or state is missing. After a node has left its cluster, it never starts from its directory as
// the same instance. Without these guarantees, a node could vote twice in a term. A recovery
// replaces a member completely or not at all. Every change is durable on return.
package datadir
