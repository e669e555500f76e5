// Package rounds lets the requests for read leases that arrive at about the same time share one
// read barrier. So an idle cluster writes one entry for each round, instead of one for each member.
//
// It only decides which request waits for which barrier. The caller must keep the order on which
// the promise of the leases depends. A request joins only after its lease is reserved. The barrier
// of a round is proposed only after Begin has returned that round. So the barrier's entry is newer
// than every reservation that relies on it.
package rounds
