package rotateca

import "fmt"

// A step is a step of the rotation.
type step string

const (
	stepBegin  step = "make the next CA"
	stepTrust  step = "let every node trust both CAs"
	stepRenew  step = "give every node a certificate of the next CA"
	stepRemove step = "let every node trust only the next CA"
	stepFinish step = "make the next CA the current one"
)

// A plan is the next step, the nodes that have not done it yet, and the problems that must be
// solved first.
type plan struct {
	step     step
	nodes    []string
	problems []string
}

// newPlan returns the next step for the state of the nodes. Before the first step, hasNext is
// false.
func newPlan(nodes []node, hasNext bool) plan {
	p := plan{nodes: []string{}, problems: []string{}} // empty lists in JSON, not null
	var untrusting, old, trusting []string
	for i := range nodes {
		n := &nodes[i]
		if n.err != nil {
			p.problems = append(p.problems, fmt.Sprintf("%s (%s): %v", n.id, n.address, n.err))
			continue
		}
		if !n.trustsNext {
			untrusting = append(untrusting, n.id)
		}
		if !n.fromNext {
			old = append(old, n.id)
		}
		if n.trustsOld {
			trusting = append(trusting, n.id)
		}
		for j := range nodes {
			if problem := refuses(n, &nodes[j]); problem != "" {
				p.problems = append(p.problems, problem)
			}
		}
	}
	switch {
	case !hasNext:
		p.step = stepBegin
	case len(untrusting) > 0:
		p.step, p.nodes = stepTrust, untrusting
	case len(old) > 0:
		p.step, p.nodes = stepRenew, old
	case len(trusting) > 0:
		p.step, p.nodes = stepRemove, trusting
	default:
		p.step = stepFinish
	}
	return p
}

// refuses returns a problem if n does not trust the CA of peer's certificate.
func refuses(n, peer *node) string {
	switch {
	case peer.err != nil:
	case peer.fromNext && !n.trustsNext:
		return fmt.Sprintf("%s does not trust the next CA, but %s has its certificate: copy %s to %s now",
			n.id, peer.id, bothFile, n.id)
	case !peer.fromNext && !n.trustsOld:
		return fmt.Sprintf("%s no longer trusts the CA of %s: copy %s to %s now", n.id, peer.id, bothFile, n.id)
	}
	return ""
}
