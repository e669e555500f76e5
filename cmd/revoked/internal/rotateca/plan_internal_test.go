package rotateca

import (
	"errors"
	"strings"
	"testing"
)

// state returns a node. trusts has "o" for the current CA and "n" for the next one.
func state(id, trusts string, fromNext bool) node {
	return node{id: id, address: id + ":7443", trustsOld: strings.Contains(trusts, "o"),
		trustsNext: strings.Contains(trusts, "n"), fromNext: fromNext}
}

func TestNewPlan_States_NextStepOrProblem(t *testing.T) {
	lost := node{id: "c", address: "c:7443", err: errors.New("refused")}
	for _, tt := range []struct {
		name    string
		nodes   []node
		hasNext bool
		step    step
		of      string
		problem string // part of the only problem
	}{
		{"no next CA", []node{state("a", "o", false), state("b", "o", false)}, false, stepBegin, "", ""},
		{"nothing copied", []node{state("a", "o", false), state("b", "o", false)}, true, stepTrust, "a b", ""},
		{"one trusts both", []node{state("a", "on", false), state("b", "o", false)}, true, stepTrust, "b", ""},
		{"all trust both", []node{state("a", "on", false), state("b", "on", false)}, true, stepRenew, "a b", ""},
		{"one has a new certificate", []node{state("a", "on", true), state("b", "on", false)}, true, stepRenew, "b", ""},
		{"all have new certificates", []node{state("a", "on", true), state("b", "on", true)}, true, stepRemove, "a b", ""},
		{"one trusts only the next", []node{state("a", "n", true), state("b", "on", true)}, true, stepRemove, "b", ""},
		{"all trust only the next", []node{state("a", "n", true), state("b", "n", true)}, true, stepFinish, "", ""},
		{"certificate too early", []node{state("a", "on", true), state("b", "o", false)}, true, stepTrust, "b",
			"b does not trust the next CA, but a has its certificate"},
		{"current CA removed too early", []node{state("a", "n", true), state("b", "on", false)}, true, stepRenew, "b",
			"a no longer trusts the CA of b"},
		{"a node is silent", []node{state("a", "on", false), lost}, true, stepRenew, "a", "c (c:7443): refused"},
	} {
		p := newPlan(tt.nodes, tt.hasNext)
		if p.step != tt.step || strings.Join(p.nodes, " ") != tt.of {
			t.Errorf("%s: got %q of %q, want %q of %q", tt.name, p.step, p.nodes, tt.step, tt.of)
		}
		problems := strings.Join(p.problems, "|")
		if (problems == "") != (tt.problem == "") || !strings.Contains(problems, tt.problem) ||
			strings.Contains(problems, "|") {
			t.Errorf("%s: got problems %q, want %q", tt.name, problems, tt.problem)
		}
	}
}

// No node is cut off while the steps are done in the order of the plan, one node after the other.
func TestNewPlan_EachStep_KeepsNodesConnected(t *testing.T) {
	nodes := []node{state("a", "o", false), state("b", "o", false), state("c", "o", false)}
	for range 20 {
		p := newPlan(nodes, true)
		if len(p.problems) > 0 {
			t.Fatalf("got problems %q", p.problems)
		}
		if p.step == stepFinish {
			return
		}
		for i := range nodes {
			n := &nodes[i]
			if n.id != p.nodes[0] {
				continue
			}
			switch p.step {
			case stepTrust:
				n.trustsNext = true
			case stepRenew:
				n.fromNext = true
			case stepRemove:
				n.trustsOld = false
			}
		}
	}
	t.Error("got no end of the rotation after 20 steps")
}
