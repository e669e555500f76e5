package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"revoked/node"
)

func snapshotRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Seed the data directory of one new, stopped node from a backup",
		Long: "Seed the data directory of one new, stopped node from a backup. It becomes the first node of a\n" +
			"new cluster; others then join it. There is no restore into a cluster that runs.\n\n" +
			"Revocations made after the backup are not in it. So that no token they ended comes back, every\n" +
			"token issued before this moment is cut off; --accept-loss --reason R states that such tokens\n" +
			"may be active again.",
		Example: "  revoked snapshot restore backup.snap --data-dir /var/lib/revoked --node-id node1",
		Args:    cobra.ExactArgs(1),
	}
	var output string
	addOutputFlag(cmd, &output)
	f := cmd.Flags()
	dataDir := f.String("data-dir", "", "data directory to make; it must not hold a node")
	nodeID := f.String("node-id", "", "node id of the new node (default: the host name)")
	acceptLoss := f.Bool("accept-loss", false, "make no cut-off: tokens revoked after the backup may be active again")
	reason := f.String("reason", "", "why, for the audit trail; required with --accept-loss")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := wantJSON(output)
		switch {
		case err != nil:
			return err
		case *dataDir == "":
			return usageError("--data-dir is required")
		case *acceptLoss && *reason == "":
			return usageError("--accept-loss needs --reason")
		}
		id := *nodeID
		if id == "" {
			if id, err = os.Hostname(); err != nil {
				return usageError("the host has no name: give --node-id")
			}
		}
		in, err := openInput(cmd, args[0])
		if err != nil {
			return fmt.Errorf("restore the snapshot: %w", err)
		}
		defer in.Close()
		backup := &countingReader{from: in}
		header, err := node.Seed(cmd.Context(), *dataDir, backup, node.SeedOptions{NodeID: id, AcceptLoss: *acceptLoss, Reason: *reason})
		if err != nil {
			return fmt.Errorf("restore the snapshot to %s: %w", *dataDir, err)
		}
		header.Bytes = backup.n // a state on disk has no size of its own: nothing but its stream has
		fmt.Fprintf(cmd.ErrOrStderr(), "restored to %s; start the node with node_id %s, then let others join it\n", *dataDir, printable(id))
		return printHeader(cmd.OutOrStdout(), asJSON, header)
	}
	return cmd
}

// A countingReader counts what is read.
type countingReader struct {
	from io.Reader
	n    int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}
