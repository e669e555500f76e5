package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

func joinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join ADDR[,ADDR...]",
		Short: "Make the called node join a cluster",
		Long: "Make the node at REVOKED_ADDR, which is not in a cluster yet, join the cluster that it finds at\n" +
			"one of the addresses. These are cluster addresses (host:port), not API addresses.\n" +
			"Authenticate as an administrator or operator from the node's own bootstrap files.",
		Example: "  REVOKED_ADDR=https://node4:8443 revoked join node1:7443,node2:7443",
		Args:    cobra.MinimumNArgs(1),
	}
	var addresses []string
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		for a := range strings.SplitSeq(strings.Join(args, ","), ",") {
			a = strings.TrimSpace(a)
			if strings.Contains(a, "://") {
				return cli.UsageError("%s: join needs cluster addresses such as node1:7443, not URLs of the API", a)
			}
			if a != "" {
				addresses = append(addresses, a)
			}
		}
		if len(addresses) == 0 {
			return cli.UsageError("join needs the cluster address of a member")
		}
		return nil
	}
	join := func(c *client.Client, ctx context.Context, _ []string) (client.Answer[client.Applied], error) {
		a, err := c.Join(ctx, addresses)
		var status *client.StatusError
		switch {
		case !errors.As(err, &status):
		case status.Status == http.StatusUnauthorized:
			err = fmt.Errorf("%w; a node outside a cluster has only the clients of its own "+
				"bootstrap_admin_secret_file and bootstrap_clients_file", err)
		case status.Status == http.StatusUnprocessableEntity:
			err = fmt.Errorf("%w; is each ADDR the cluster address (cluster_advertise) of a running member, "+
				"and does the same CA sign its certificate?", err)
		}
		return a, err
	}
	return call.Change(cmd, join, "joined; the node becomes a voter once it has caught up")
}

func leaveCommand() *cobra.Command {
	return call.Change(&cobra.Command{
		Use:   "leave",
		Short: "Make the called node leave its cluster permanently",
		Long: "Make the node at REVOKED_ADDR leave its cluster permanently. It transfers leadership, returns its\n" +
			"read lease, leaves the configuration and exits. Its data directory does not start again without\n" +
			"--rejoin. To stop a node for a while, stop its process instead.",
		Args: cobra.NoArgs,
	}, call.WithoutArgs((*client.Client).Leave), "left the cluster; the node stops now")
}

func removeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a lost node from the cluster",
		Long: "Remove a node that is lost and will not come back. The cluster refuses if the node answers or if\n" +
			"it would lose quorum, unless you force it and give a reason. Use `revoked leave` for a node that runs.",
		Args: cobra.ExactArgs(1),
	}
	force := cmd.Flags().Bool("force", false, "remove it even if it answers or if that would lose quorum")
	reason := cmd.Flags().String("reason", "", "reason, for the log; required with --force")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *force && *reason == "" {
			return cli.UsageError("--force needs --reason")
		}
		return nil
	}
	return call.Change(cmd, call.WithArg(
		func(c *client.Client, ctx context.Context, node string) (client.Answer[client.Applied], error) {
			return c.Remove(ctx, client.Removal{Node: node, Force: *force, Reason: *reason})
		}), "removed ARG")
}

func transferLeaderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer-leader [NODE]",
		Short: "Transfer leadership to another node",
		Long:  "Transfer leadership to NODE, or to the follower that is most up to date.",
		Args:  cobra.MaximumNArgs(1),
	}
	transfer := func(c *client.Client, ctx context.Context, args []string) (client.Answer[client.Applied], error) {
		return c.TransferLeader(ctx, strings.Join(args, ""))
	}
	return call.Command(cmd, transfer, func(cmd *cobra.Command, a client.Applied) error {
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "leadership transferred to %s (log index %d)\n",
			cli.Clean(cmp.Or(cmd.Flags().Arg(0), a.Leader, "another node")), a.Index)
		return err
	})
}

func membersCommand() *cobra.Command {
	return call.Command(&cobra.Command{
		Use:   "members",
		Short: "List the nodes of the cluster",
		Long: "List the nodes of the cluster as the leader sees them: region, state, vote, applied log index,\n" +
			"entries behind, time since the last report, lease time left, version.",
		Args: cobra.NoArgs,
	}, call.WithoutArgs((*client.Client).Members), printMembers, func(cmd *cobra.Command, m client.Members) error {
		if len(m.Members) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), noCluster)
		}
		return nil
	})
}

// noCluster explains the answers of a node that is not in a cluster.
const noCluster = "this node is not in a cluster yet: it waits until it has found bootstrap_expect nodes, " +
	"or until you run revoked join ADDR"

func printMembers(cmd *cobra.Command, m client.Members) error {
	if len(m.Members) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(m.Members))
	for _, n := range m.Members {
		lease := "none"
		if n.LeaseLeftMS > 0 {
			lease = formatMillis(n.LeaseLeftMS)
		}
		applied, behind := fmt.Sprint(n.AppliedIndex), fmt.Sprint(n.Behind)
		if n.AppliedIndex == 0 {
			applied, behind = "?", "?"
		}
		rows = append(rows, []string{
			n.NodeID, n.Region, memberState(n), cli.YesNo(n.Voter), applied, behind,
			formatMillis(n.LastContactMS), lease, n.Version,
		})
	}
	return cli.PrintTable(cmd.OutOrStdout(), []string{
		"NODE", "REGION", "STATE", "VOTER", "APPLIED", "BEHIND", "LAST CONTACT", "LEASE LEFT", "VERSION",
	}, rows)
}

func memberState(m client.Member) string {
	switch {
	case m.Leader:
		return "leader"
	case !m.Alive:
		return "lost"
	}
	return "follower"
}

func statusCommand() *cobra.Command {
	return call.Command(&cobra.Command{
		Use:   "status",
		Short: "Show the health of the called node",
		Long: "Show health, leader, term, log indexes, quorum, read lease and hashes of the called node.\n" +
			"Exit code 0: healthy. 2: reachable, but unhealthy. 1: unreachable.",
		Args: cobra.NoArgs,
	}, call.WithoutArgs((*client.Client).Status), printStatus, func(cmd *cobra.Command, s client.Status) error {
		if s.Healthy {
			return nil
		}
		if s.ClusterID == "" {
			fmt.Fprintln(cmd.ErrOrStderr(), noCluster)
		}
		why := ""
		if len(s.Reasons) > 0 {
			why = ": " + strings.Join(s.Reasons, "; ")
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "revoked: node %s is not healthy%s\n", cli.Clean(s.NodeID), cli.Clean(why))
		return cli.Negative()
	})
}

func printStatus(cmd *cobra.Command, s client.Status) error {
	leader := "none"
	if s.Leader.NodeID != "" {
		leader = s.Leader.NodeID
		if s.Leader.API != "" {
			leader += " (" + s.Leader.API + ")"
		}
	}
	lease := "none"
	if s.Lease.Held {
		lease = formatMillis(s.Lease.LeftMS) + " left"
	}
	pairs := []any{
		"Node", s.NodeID, "Cluster", s.ClusterID, "Version", s.Version, "Healthy", s.Healthy, "State", s.State,
		"Leader", leader, "Term", s.Term, "Commit index", s.CommitIndex, "Applied index", s.AppliedIndex,
	}
	switch v := s.Voting; {
	case v == nil: // the node is older than version 0.4, or not in a cluster
		pairs = append(pairs, "Voters", fmt.Sprintf("%d (quorum %d)", s.Voters, s.Quorum))
	default:
		pairs = append(pairs, "Voters", fmt.Sprintf("%d of %d up (quorum %d); %s more may fail", v.VotersUp, v.Voters,
			v.Quorum, countOrNo(v.FailureTolerance)))
		if len(v.Regions) > 1 {
			pairs = append(pairs, "Regions", regionsText(v))
		}
	}
	pairs = append(pairs, "Read lease", lease, "Tokens", s.Tokens, "Grants", s.Grants)
	if s.ClusterID != "" { // otherwise both hashes are zero
		pairs = append(pairs, "Hash index", s.HashIndex, "Log hash", s.LogHash, "State hash", s.StateHash)
	}
	if len(s.WaitingFor) > 0 {
		pairs = append(pairs, "Waiting for", strings.Join(s.WaitingFor, ", "))
	}
	for _, b := range s.Backups {
		age := "none"
		if b.AgeMS >= 0 {
			age = formatMillis(b.AgeMS/1000*1000) + " old"
		}
		pairs = append(pairs, "Backup ("+cli.Clean(b.Target)+")", age)
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

// regionsText describes the regions that have voters.
func regionsText(v *client.Voting) string {
	var list []string
	for _, r := range v.Regions {
		list = append(list, fmt.Sprintf("%s %d of %d up", cmp.Or(r.Region, "?"), r.VotersUp, r.Voters))
	}
	return fmt.Sprintf("%s; whole regions that may fail: %d", strings.Join(list, ", "), v.RegionFailureTolerance)
}

// countOrNo returns a number as text, and "no" for 0.
func countOrNo(n int) string {
	if n == 0 {
		return "no"
	}
	return strconv.Itoa(n)
}

// formatMillis formats milliseconds. A negative number is "never".
func formatMillis(ms int64) string {
	if ms < 0 {
		return "never"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}
