package main

import (
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"revoked"
)

func membersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the nodes of the cluster",
		Long: "List the nodes of the cluster as the node that is asked sees them: region, state, vote,\n" +
			"applied log index, how many entries it is behind, time since it was last heard, what is\n" +
			"left of its read lease, version.",
		Args: cobra.NoArgs,
	}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		c := call{what: "list the members", method: http.MethodGet, path: "/v1/members"}
		body, err := a.do(cmd.Context(), c)
		if err != nil {
			return err
		}
		return answer(cmd, a, c.what, body, printMembers)
	}
	return cmd
}

// membersAnswer is the body of GET /v1/members.
type membersAnswer struct {
	Members []revoked.Member `json:"members"`
}

func printMembers(w io.Writer, m membersAnswer) error {
	rows := make([][]string, 0, len(m.Members))
	for _, n := range m.Members {
		lease := "none"
		if n.LeaseLeftMS > 0 {
			lease = millis(n.LeaseLeftMS)
		}
		appliedIndex, behind := strconv.FormatUint(n.AppliedIndex, 10), strconv.FormatUint(n.Behind, 10)
		if n.AppliedIndex == 0 { // it has not reported to this leader yet
			appliedIndex, behind = "?", "?"
		}
		rows = append(rows, []string{
			n.NodeID, n.Region, memberState(n), yesNo(n.Voter), appliedIndex, behind,
			millis(n.LastContactMS), lease, n.Version,
		})
	}
	return printTable(w, []string{"NODE", "REGION", "STATE", "VOTER", "APPLIED", "BEHIND", "LAST CONTACT", "LEASE LEFT", "VERSION"}, rows)
}

func memberState(m revoked.Member) string {
	switch {
	case m.Leader:
		return "leader"
	case !m.Alive:
		return "lost"
	}
	return "follower"
}
