package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// indexAnswer is the body of an answer that names the log index at which it was done.
type indexAnswer struct {
	Index uint64 `json:"index"`
}

// runIndexed sends c and prints done with the log index, on standard error, or the answer as JSON.
func runIndexed(cmd *cobra.Command, conn *connection, c call, done string) error {
	a, err := conn.open()
	if err != nil {
		return err
	}
	body, err := a.do(cmd.Context(), c)
	if err != nil {
		return err
	}
	return answer(cmd, a, c.what, body, func(_ io.Writer, v indexAnswer) error {
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s (log index %d)\n", done, v.Index)
		return err
	})
}

func joinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join ADDR[,ADDR...]",
		Short: "Make the node that is asked join a cluster",
		Long: "Tell the node at REVOKED_ADDR, which belongs to no cluster yet, to join the cluster that is\n" +
			"found at one of the addresses: cluster addresses (host:port), not those of the API.\n" +
			"The administrator is the one of the node's own bootstrap files.",
		Example: "  REVOKED_ADDR=https://node4:8443 revoked join node1:7443,node2:7443",
		Args:    cobra.MinimumNArgs(1),
	}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var addresses []string
		for a := range strings.SplitSeq(strings.Join(args, ","), ",") {
			a = strings.TrimSpace(a)
			if strings.Contains(a, "://") {
				return usageError("%s: join takes cluster addresses such as node1:7443, not URLs of the API", a)
			}
			if a != "" {
				addresses = append(addresses, a)
			}
		}
		if len(addresses) == 0 {
			return usageError("join needs the cluster address of a member")
		}
		c, err := jsonCall("join the cluster", http.MethodPost, "/v1/cluster/join", map[string]any{"addresses": addresses})
		if err != nil {
			return err
		}
		c.local = true
		return runIndexed(cmd, conn, c, "joined; the node becomes a voter once it has caught up")
	}
	return cmd
}

func leaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Make the node that is asked leave its cluster for good",
		Long: "Make the node at REVOKED_ADDR leave for good: it hands over leadership, gives its read lease\n" +
			"back, leaves the configuration and ends. Its data directory refuses to start again without\n" +
			"--rejoin. To stop a node for a while, stop its process instead.",
		Args: cobra.NoArgs,
	}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := jsonCall("leave the cluster", http.MethodPost, "/v1/cluster/leave", struct{}{})
		if err != nil {
			return err
		}
		c.local = true
		return runIndexed(cmd, conn, c, "left the cluster; the node ends now")
	}
	return cmd
}

func removeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a lost node out of the cluster",
		Long: "Take another node out of the cluster: one that is lost and will not come back. Refused where\n" +
			"it would lose quorum, unless forced with a reason. A node that runs leaves by `revoked leave`.",
		Args: cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	force := cmd.Flags().Bool("force", false, "remove it also where that would lose quorum")
	reason := cmd.Flags().String("reason", "", "why, for the audit trail; required with --force")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *force && *reason == "" {
			return usageError("--force needs --reason")
		}
		body := map[string]any{"node": args[0]}
		if *force {
			body["force"] = true
		}
		if *reason != "" {
			body["reason"] = *reason
		}
		c, err := jsonCall("remove node "+printable(args[0]), http.MethodPost, "/v1/cluster/remove", body)
		if err != nil {
			return err
		}
		return runIndexed(cmd, conn, c, "removed "+printable(args[0]))
	}
	return cmd
}

func transferLeaderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer-leader [NODE]",
		Short: "Hand leadership to another node",
		Long:  "Hand leadership to NODE, or to the follower that the leader finds fittest.",
		Args:  cobra.MaximumNArgs(1),
	}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, to := map[string]string{}, "another node"
		if len(args) == 1 {
			body["node"], to = args[0], printable(args[0])
		}
		c, err := jsonCall("transfer leadership", http.MethodPost, "/v1/cluster/transfer-leader", body)
		if err != nil {
			return err
		}
		c.once = true // a second time would hand it on once more
		return runIndexed(cmd, conn, c, "leadership handed to "+to)
	}
	return cmd
}
