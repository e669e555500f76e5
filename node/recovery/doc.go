// Package recovery begins a new cluster on the disk of one stopped node. Seed uses the state of a
// backup. Recover uses the state of a member whose cluster has lost its quorum permanently.
//
// Promise: the new cluster has another id, another era and only this node, as a new instance. So no
// node and no disk of the earlier cluster can join it or take this node back. Every token issued
// before is revoked, unless the caller accepts the loss. A crash leaves the directory as it was, or
// complete.
//
// Dangerous: the earlier cluster must no longer run. This package cannot verify that.
package recovery
