// Package recovery creates a new cluster on the disk of one stopped node. Seed uses the state of a
// backup. Recover uses the state of a member whose cluster has lost its quorum permanently.
//
// Promise: the new cluster has a new id and a new era, and its only member is a new instance of
// this node. So no node or disk of the earlier cluster can join the new cluster, or make this node
// a member of the earlier one again. Every token issued earlier is revoked, unless the caller
// accepts the loss. After a crash, the directory contains the old data unchanged, or the complete
// new cluster.
//
// Dangerous: the earlier cluster must no longer run. This package cannot verify that it has
// stopped.
package recovery
