// Package leasecheck checks the events of the lease protocol against its rules, for tests.
//
// A [Checker] accepts only steps that the rules in node/DESIGN.md permit. It follows the rules and
// true time, and shares no code with package lease. It observes the nodes of the simulation
// (node/simulation_test.go) and the model itself. There it must report an error whenever the model
// finds the promise broken (node/lease/walk_test.go).
//
// It repeats the constants of the protocol on purpose: a constant that both packages shared could
// be wrong in both.
package leasecheck
