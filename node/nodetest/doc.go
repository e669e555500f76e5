// Package nodetest is the test kit: clusters of whole nodes in one process, with the shipped
// transport on loopback, their API servers, and the faults that a process can inflict on itself.
// Only tests import it.
package nodetest
