// Package server runs one node in this process: listeners, node, API, audit_log, metrics, and the
// reload of certificates and the log level.
//
// Run starts the parts in order and stops them in reverse. A clean shutdown keeps the node a member
// of its cluster. The package sets the global metrics sink and the garbage collector's limit, so a
// process can run only one server.
package server
