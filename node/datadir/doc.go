// Package datadir owns what identifies a data directory: its lock, the name of its instance, and
// the cluster that it belongs to.
//
// Promise: two processes never use one directory. A directory whose log or state is missing never
// starts as its old voter. After a node has left its cluster, its directory never returns as the
// same instance. Each of these would let a node vote twice in a term. A recovery replaces a member
// completely or not at all. Every change is durable on return.
package datadir
