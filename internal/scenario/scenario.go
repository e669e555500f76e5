// Package scenario contains tests of whole clusters that use only the API. The same bodies run
// against a cluster in one process (package node) and against real processes (package systemtest).
package scenario

import "testing"

// A Scenario is one test.
type Scenario struct {
	Name  string
	Nodes int // number of nodes that the cluster starts with
	run   func(*cluster)
}

// All lists the scenarios.
var All = []Scenario{
	{"revocation is final on every node", 3, revokeEverywhere},
	{"restart of all nodes keeps revocations", 3, restartAll},
	{"failover keeps revocations", 3, failover},
	{"requests without quorum get 503", 3, loseQuorum},
	{"cluster grows and its leader leaves", 1, growAndLeave},
	{"leadership transfer to a named node", 3, transfer},
	{"removal protects the quorum", 3, remove},
	{"node removed while away stops", 4, removeAbsent},
	{"empty disk makes a new instance", 3, wipe},
	{"node outside a cluster refuses changes", 1, noCluster},
}

// Run runs a scenario on a cluster of s.Nodes nodes that have been started.
func (s Scenario) Run(t *testing.T, nodes Nodes) {
	c := &cluster{Nodes: nodes, T: t, up: map[int]bool{}}
	for k := range s.Nodes {
		c.up[k] = true
	}
	c.awaitReady()
	s.run(c)
}
