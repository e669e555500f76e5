// Package rounds lets the requests for read leases that arrive at about the same time share one
// read barrier. So an idle cluster writes one entry a round and not one for each member.
//
// It only decides which request waits for which barrier. The caller must keep the order on which
// the promise depends. A request joins after its lease is reserved. The barrier of a round is
// proposed after Begin has returned that round. So the entry is younger than every reservation that
// relies on it.
package rounds
