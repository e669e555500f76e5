package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"revoked"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the health of the node that is asked",
		Long: "Show health, leader, term, log indexes, quorum, read lease and hashes of the node that is asked.\n" +
			"Ends with 0 where it is healthy, 2 where it can be reached but is not, 1 where it cannot.",
		Args: cobra.NoArgs,
	}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		c := call{what: "read the status", method: http.MethodGet, path: "/v1/status"}
		body, err := a.do(cmd.Context(), c)
		if err != nil {
			return err
		}
		var s revoked.NodeStatus
		if err := parseAnswer(c.what, body, &s); err != nil {
			return err
		}
		if a.asJSON {
			err = printBody(cmd.OutOrStdout(), body)
		} else {
			err = printStatus(cmd.OutOrStdout(), s)
		}
		if err != nil {
			return err
		}
		if !s.Healthy {
			fmt.Fprintf(cmd.ErrOrStderr(), "revoked: node %s is not healthy\n", printable(s.NodeID))
			return negative()
		}
		return nil
	}
	return cmd
}

func printStatus(w io.Writer, s revoked.NodeStatus) error {
	leader := "none"
	if s.Leader.NodeID != "" {
		leader = s.Leader.NodeID
		if s.Leader.API != "" {
			leader += " (" + s.Leader.API + ")"
		}
	}
	lease := "none"
	if s.Lease.Held {
		lease = millis(s.Lease.LeftMS) + " left"
	}
	u := func(n uint64) string { return strconv.FormatUint(n, 10) }
	rows := [][2]string{
		{"Node", s.NodeID},
		{"Cluster", s.ClusterID},
		{"Version", s.Version},
		{"Healthy", yesNo(s.Healthy)},
		{"State", s.State},
		{"Leader", leader},
		{"Term", u(s.Term)},
		{"Commit index", u(s.CommitIndex)},
		{"Applied index", u(s.AppliedIndex)},
		{"Voters", fmt.Sprintf("%d (quorum %d)", s.Voters, s.Quorum)},
		{"Read lease", lease},
		{"Tokens", u(s.Tokens)},
		{"Grants", u(s.Grants)},
		{"Hash index", u(s.HashIndex)},
		{"Log hash", s.LogHash},
		{"State hash", s.StateHash},
	}
	if len(s.WaitingFor) > 0 {
		rows = append(rows, [2]string{"Waiting for", strings.Join(s.WaitingFor, ", ")})
	}
	return printPairs(w, rows)
}
