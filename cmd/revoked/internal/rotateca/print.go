package rotateca

import (
	"encoding/json"
	"time"

	"revoked/cmd/revoked/internal/cli"
)

// nodeView is a node as JSON.
type nodeView struct {
	NodeID      string `json:"node_id"`
	Address     string `json:"cluster"`
	TrustsOld   bool   `json:"trusts_present"`
	TrustsNext  bool   `json:"trusts_next"`
	Certificate string `json:"certificate"` // CA that issued it: "present" or "next"; empty if unknown
	NotAfter    string `json:"not_after,omitempty"`
}

// trusts returns a word for the CAs that n trusts.
func (n *node) trusts() string {
	switch {
	case n.trustsOld && n.trustsNext:
		return "both"
	case n.trustsNext:
		return "next"
	}
	return "present"
}

// print prints the state of the nodes, and the next step.
func (r *rotation) print(nodes []node, p plan, asJSON bool) error {
	views := make([]nodeView, len(nodes))
	rows := make([][]string, len(nodes))
	for i, n := range nodes {
		v := nodeView{NodeID: n.id, Address: n.address}
		trusts, ends := "", ""
		if n.err == nil {
			v.TrustsOld, v.TrustsNext, v.Certificate = n.trustsOld, n.trustsNext, "present"
			if n.fromNext {
				v.Certificate = "next"
			}
			ends = n.leaf.NotAfter.UTC().Format(time.RFC3339)
			v.NotAfter = ends
			trusts = n.trusts()
		}
		views[i] = v
		rows[i] = []string{cli.Clean(n.id), cli.Clean(n.address), trusts, v.Certificate, ends}
	}
	out := r.cmd.OutOrStdout()
	if asJSON {
		return json.NewEncoder(out).Encode(map[string]any{"step": p.step, "step_nodes": p.nodes, "problems": p.problems,
			"nodes": views})
	}
	heading := []string{"NODE", "CLUSTER", "TRUSTS CA", "CERTIFICATE OF CA", "EXPIRES"}
	if err := cli.PrintTable(out, heading, rows); err != nil {
		return err
	}
	return cli.PrintPairs(out, "Next step", string(p.step))
}
