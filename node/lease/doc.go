// Package lease holds the two sides of the read leases as pure state machines. [Table] is the
// leader's side in one term, [Holder] a member's side. DESIGN.md of package node has the protocol
// and the argument for its safety.
//
// Promise: while a Holder covers a read, no Table of any term acknowledges an index that the read's
// state lacks. This is guaranteed while every boot clock runs within [RateBound] of true time.
//
// The package does no I/O, starts no goroutine and reads no clock: the caller passes the time and
// holds one lock around every call. Only [BootClock], which the caller may pass on, reads a clock.
//
// Dangerous: a reservation that ends before its lease, and a comparison of the instants of two
// machines.
package lease
