// Package nodetest runs clusters of whole nodes in one process: the shipped transport on loopback,
// the API servers, and the faults that a process can cause itself. Only tests import it.
package nodetest
