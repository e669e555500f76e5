package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/files"
	"revoked/cmd/revoked/internal/input"
	"revoked/fsm/snapshot"
	"revoked/node/recovery"
)

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Back up, inspect and restore the state of the cluster",
	}
	cmd.AddCommand(snapshotSaveCommand(), snapshotInspectCommand(), snapshotRestoreCommand())
	return cmd
}

func snapshotSaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save FILE|-",
		Short: "Save a backup, verified, to a file or standard output",
		Long: "Save a backup of the state of the cluster and verify it. FILE appears only when it is complete and\n" +
			"on disk. With - exit code 1 means that the stream is incomplete. The backup contains digests of\n" +
			"tokens and hashes of secrets, never the tokens or secrets.",
		Args: cobra.ExactArgs(1),
	}
	conn := call.AddFlags(cmd)
	force := cmd.Flags().Bool("force", false, "replace FILE if it exists")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, asJSON, err := conn.Open()
		if err != nil {
			return err
		}
		// On Ctrl-C, remove a partly written file.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if args[0] == "-" {
			header, err := fetchSnapshot(ctx, c, cmd.OutOrStdout())
			if err != nil {
				return conn.Advise(err)
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "verified backup of cluster %s at log index %d\n",
				cli.Clean(header.ClusterID), header.Index)
			return err
		}
		header, err := saveSnapshot(ctx, c, args[0], *force)
		if err != nil {
			return conn.Advise(err)
		}
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "saved and verified %s\n", args[0]); err != nil {
			return err
		}
		return printHeader(cmd.OutOrStdout(), asJSON, header)
	}
	return cmd
}

// fetchSnapshot copies a backup to w and verifies it. The copy is valid only if the error is nil.
func fetchSnapshot(ctx context.Context, c *client.Client, w io.Writer) (snapshot.Header, error) {
	body, addr, err := c.Snapshot(ctx)
	if err != nil {
		return snapshot.Header{}, err
	}
	defer body.Close()
	out := &cli.Output{To: w}
	header, err := snapshot.Verify(io.TeeReader(body, out))
	if out.Err != nil { // the verifier mistakes a failed copy for the end of the snapshot
		return header, fmt.Errorf("save the snapshot: %w", out.Err)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return header, fmt.Errorf("fetch a snapshot at %s: %w; it was not saved", addr, err)
	}
	return header, nil
}

// saveSnapshot creates file complete and durable, or not at all.
func saveSnapshot(ctx context.Context, c *client.Client, file string, force bool) (header snapshot.Header, err error) {
	fetching := false
	err = files.Create(file, force, func(w io.Writer) (err error) {
		header, err = fetchSnapshot(ctx, c, w)
		fetching = err != nil
		return err
	})
	if err != nil && !fetching {
		err = fmt.Errorf("save the snapshot: %w", err)
	}
	return header, err
}

func snapshotInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect FILE|-",
		Short: "Verify a backup and show its contents",
		Args:  cobra.ExactArgs(1),
	}
	var output string
	cli.AddOutputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := cli.WantJSON(output)
		if err != nil {
			return err
		}
		f, err := input.Open(cmd, args[0])
		if err != nil {
			return fmt.Errorf("inspect the snapshot: %w", err)
		}
		defer f.Close()
		header, err := snapshot.Verify(f)
		if err != nil {
			return fmt.Errorf("%s: invalid backup: %s", args[0], revoked.Detail(err))
		}
		return printHeader(cmd.OutOrStdout(), asJSON, header)
	}
	return cmd
}

// A headerView is the JSON output of `snapshot`.
type headerView struct {
	FormatVersion int    `json:"format_version"`
	ClusterID     string `json:"cluster_id"`
	Index         uint64 `json:"index"`
	Term          uint64 `json:"term"`
	Tokens        uint64 `json:"tokens"`
	Grants        uint64 `json:"grants"`
	Clients       uint64 `json:"clients"`
	Cutoffs       uint64 `json:"cutoffs"`
	Tombstones    uint64 `json:"tombstones"`
	Bytes         int64  `json:"bytes"`
	LogHash       string `json:"log_hash"`
	StateHash     string `json:"state_hash"`
	CreatedAt     string `json:"created_at"`
}

func printHeader(w io.Writer, asJSON bool, h snapshot.Header) error {
	state := h.State.Bytes()
	a := headerView{
		FormatVersion: h.Version, ClusterID: h.ClusterID, Index: h.Index, Term: h.Term,
		Tokens: h.Tokens, Grants: h.Grants, Clients: h.Clients, Cutoffs: h.Cutoffs, Tombstones: h.Tombstones, Bytes: h.Bytes,
		LogHash: hex.EncodeToString(h.LogHash[:]), StateHash: hex.EncodeToString(state[:]),
		CreatedAt: h.Stamp.Std().Format(time.RFC3339),
	}
	if asJSON {
		return json.NewEncoder(w).Encode(a)
	}
	return cli.PrintPairs(w,
		"Cluster", a.ClusterID, "Log index", a.Index, "Term", a.Term, "Made at", a.CreatedAt, "Tokens", a.Tokens,
		"Grants", a.Grants, "Clients", a.Clients, "Cut-offs", a.Cutoffs, "Tombstones", a.Tombstones, "Bytes", a.Bytes,
		"Log hash", a.LogHash, "State hash", a.StateHash, "Format", a.FormatVersion)
}

func snapshotRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Start a new cluster from a backup",
		Long: "Fill the data directory of one new, stopped node from a backup. It becomes the first node of a new\n" +
			"cluster, and others then join it. You cannot restore into a running cluster.\n\n" +
			"A backup lacks later revocations. So the restore revokes every token issued before\n" +
			"this time, and the new cluster registers a token only with its issued_at. With --accept-loss\n" +
			"--reason R it does neither, and such tokens may be active again.",
		Example: "  revoked snapshot restore backup.snap --data-dir /var/lib/revoked --node-id node1",
		Args:    cobra.ExactArgs(1),
	}
	var form string
	cli.AddOutputFlag(cmd, &form)
	f := cmd.Flags()
	dataDir := f.String("data-dir", "", "data directory to create; it must not contain a node")
	nodeID := f.String("node-id", "", "node id of the new node (default: the host name)")
	acceptLoss := f.Bool("accept-loss", false, "create no cut-off: tokens revoked after the backup may be active again")
	reason := f.String("reason", "", "reason, kept in the cut-off and in the feed; required with --accept-loss, "+
		"which only prints it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := cli.WantJSON(form)
		switch {
		case err != nil:
			return err
		case *dataDir == "":
			return cli.UsageError("--data-dir is required")
		case *acceptLoss && *reason == "":
			return cli.UsageError("--accept-loss needs --reason")
		}
		id := *nodeID
		if id == "" {
			if id, err = os.Hostname(); err != nil {
				return cli.UsageError("this host has no name; set --node-id")
			}
		}
		in, err := input.Open(cmd, args[0])
		if err != nil {
			return fmt.Errorf("restore the snapshot: %w", err)
		}
		defer in.Close()
		backup := &cli.Output{To: io.Discard}
		header, err := recovery.Seed(*dataDir, io.TeeReader(in, backup),
			recovery.SeedOptions{NodeID: id, AcceptLoss: *acceptLoss, Reason: *reason})
		if err != nil {
			err = fmt.Errorf("restore the snapshot to %s: %w", *dataDir, err)
			if errors.Is(err, revoked.ErrUnprocessable) {
				err = fmt.Errorf("%w; set the clock of this machine and try again", err)
			}
			return err
		}
		header.Bytes = backup.Bytes // bytes of the whole backup
		ended := fmt.Sprintf("every token issued before %s is revoked, and registrations need issued_at",
			header.Stamp.Std().Format(time.RFC3339))
		if *acceptLoss {
			ended = fmt.Sprintf("no token is revoked, and tokens revoked after the backup may be active again (reason: %s)",
				cli.Clean(*reason))
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(),
			"restored to %s: %s; start the node with node_id %s, then join other nodes to it\n",
			*dataDir, ended, cli.Clean(id))
		if err != nil {
			return err
		}
		return printHeader(cmd.OutOrStdout(), asJSON, header)
	}
	return cmd
}
