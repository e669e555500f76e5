// Package leasecheck checks the events of the lease protocol against its rules, for tests.
//
// A [Checker] accepts only steps that the rules in node/DESIGN.md permit. It follows the rules and
// true time, and shares no code with package lease. It observes the nodes of the simulation
// (node/simulation_test.go). It also observes the model itself, and must report an error whenever
// the model breaks the promise (node/lease/walk_test.go).
//
// It repeats the constants of the protocol on purpose: a shared constant could be wrong in both
// packages.
package leasecheck
