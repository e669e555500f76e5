// Package nodetest runs clusters of whole nodes in one process. They use the shipped transport on
// loopback and the API servers, and offer the faults that a process can cause itself. Only tests
// import it.
//
// Nodes keep their addresses and directories over restarts. Every wait polls a condition and is
// bounded by LongStop, so a busy machine makes a test slow but does not fail it. No function
// asserts how long something takes.
//
// Dangerous: all nodes of a test share one process, its clock and its memory. A fault that must end
// a process, or stop its clock, belongs in cmd/revoked/systemtest or the simulation.
package nodetest
