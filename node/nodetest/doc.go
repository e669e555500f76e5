// Package nodetest runs clusters of whole nodes in one process. The nodes use the real transport on
// loopback and the real API servers. The package offers the faults that can be caused inside a
// process. Only tests import it.
//
// A node keeps its addresses and its directory across restarts. Every wait polls a condition for at
// most LongStop, so a busy machine makes a test slow but does not fail it. No function asserts how
// long an operation takes.
//
// Dangerous: all nodes of a test share one process, its clock and its memory. A fault that must end
// a process or stop its clock belongs in cmd/revoked/systemtest or in the simulation.
package nodetest
