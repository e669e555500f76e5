//go:build !sim

package node

import "revoked/node/lease"

// The leases use the state machines as they are. A build with the tag sim replaces this file by
// observe_sim.go, which wraps them, so that the simulation can check each of their steps.
type (
	leaseTable  = lease.Table
	leaseHolder = lease.Holder
	observation struct{}
)

func (observation) afterRead() {}
func (observation) answered()  {}

func newLeaseHolder(server, boot string, _ observation) *leaseHolder {
	return lease.NewHolder(server, boot)
}

func observeTable(t *lease.Table, _ uint64, _ observation) *leaseTable { return t }
