// Package lease implements both sides of the read lease protocol as pure state machines. [Table] is
// the leader's side in one term, [Holder] a member's side. DESIGN.md of package node describes the
// protocol and explains why it is safe.
//
// Promise: while the lease of a Holder covers a read, no Table of any term acknowledges an index
// missing from the state that was read. The promise requires that the rate of every boot clock is
// within [RateBound] of true time.
//
// The package does no I/O, starts no goroutine and reads no clock: the caller passes the time and
// holds one lock around every call. Only [BootClock], which the caller may pass on, reads a clock.
//
// Dangerous: a reservation that ends before its lease breaks the promise. So does comparing
// instants of two machines.
package lease
