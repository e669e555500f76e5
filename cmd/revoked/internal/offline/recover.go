// Package offline implements `revoked recover`, which works on the data directory of a stopped
// node.
//
// Without --dry-run=false it changes only what a start of the node would also change. It never
// touches a directory that a process uses.
package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"revoked"
	"revoked/cmd/revoked/internal/cli"
	"revoked/node/recovery"
)

// A recoverView is the JSON output.
type recoverView struct {
	DryRun bool `json:"dry_run"`
	recovery.Recovery
}

// RecoverCommand returns `revoked recover`.
func RecoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Start a new cluster from the disk of one voter, after the quorum is lost permanently",
		Long: "Show what the disk of a stopped voter holds, and what a recovery would do. With --dry-run=false, make\n" +
			"this node the first and only member of a new cluster. The others then join with empty data\n" +
			"directories. Stop every node of the old cluster first.\n\n" +
			"This disk may lack revocations that were acknowledged. So the recovery revokes every token issued before\n" +
			"this time, and the new cluster registers a token only with its issued_at. With --accept-loss\n" +
			"--reason R it does neither, and tokens of lost revocations may be active again.",
		Example: "  revoked recover --data-dir /var/lib/revoked\n" +
			"  revoked recover --data-dir /var/lib/revoked --dry-run=false",
		Args: cobra.NoArgs,
	}
	var form string
	cli.AddOutputFlag(cmd, &form)
	f := cmd.Flags()
	dir := f.String("data-dir", "", "data directory of the stopped node")
	dryRun := f.Bool("dry-run", true, "change nothing; --dry-run=false recovers")
	acceptLoss := f.Bool("accept-loss", false, "create no cut-off: tokens of lost revocations may be active again")
	reason := f.String("reason", "", "reason, for the feed and DIR/recovery.json; required with --accept-loss")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := cli.WantJSON(form)
		switch {
		case err != nil:
			return err
		case *dir == "":
			return cli.UsageError("--data-dir is required")
		case *acceptLoss && *reason == "":
			return cli.UsageError("--accept-loss needs --reason")
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		r, err := recovery.Recover(ctx, *dir,
			recovery.Options{DryRun: *dryRun, AcceptLoss: *acceptLoss, Reason: *reason})
		if err != nil {
			err = fmt.Errorf("recover %s: %s", *dir, revoked.Detail(err))
			if !errors.Is(err, revoked.ErrUnprocessable) && r.Before != nil {
				err = fmt.Errorf("%w; run the command again to see the contents of the directory now", err)
			}
			return err
		}
		if asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(recoverView{*dryRun, r})
		} else {
			err = printRecovery(cmd.OutOrStdout(), &r)
		}
		if err == nil {
			_, err = fmt.Fprintln(cmd.ErrOrStderr(), message(&r, *dryRun))
		}
		return err
	}
	return cmd
}

// message describes the effect of the command, or with a dry run the effect that it would have.
func message(r *recovery.Recovery, dryRun bool) string {
	ended := "every token issued before that time is revoked, and registrations need issued_at"
	if r.AcceptLoss {
		ended = "no token is revoked, and tokens of lost revocations may be active again"
	}
	switch {
	case r.Resumed && dryRun:
		return "dry run: an earlier recovery was interrupted after its last check; " +
			"--dry-run=false or a start of the node completes it"
	case r.Resumed:
		return "recovered: an earlier recovery was interrupted, and is complete now; " +
			"start the node, then join other nodes to it"
	case dryRun:
		return "dry run: nothing was changed. --dry-run=false makes " + cli.Clean(r.Before.NodeID) +
			" the only member of a new cluster; " + ended + ".\nStop every node of the old cluster first. " +
			"If several disks are left, recover the one with the highest term, then the highest index."
	case !r.AcceptLoss:
		ended = fmt.Sprintf("every token issued before %s is revoked, and registrations need issued_at",
			cli.Date(r.EndsBefore))
	}
	return fmt.Sprintf("recovered: %s is the only member of the new cluster %s: %s; "+
		"start it, then admit the others and start them with empty data directories",
		cli.Clean(r.Before.NodeID), r.ClusterID, ended)
}

func printRecovery(w io.Writer, r *recovery.Recovery) error {
	h := r.Before
	if h == nil {
		return nil
	}
	missing := "changes since the last entry, if the others made any"
	if h.Missing > 0 {
		missing = fmt.Sprintf("at least %s that another member had", english.Plural(int(h.Missing), "entry", "entries"))
	}
	pairs := []any{"Node", h.NodeID, "Cluster", h.ClusterID, "Log ends at index", h.Index, "Term", h.Term,
		"State at index", h.State, "Last entry at", cli.Date(h.LastEntry), "Tokens", h.Tokens, "Grants", h.Grants,
		"May be missing", missing}
	if r.ClusterID != "" {
		pairs = append(pairs, "New cluster", r.ClusterID, "New index", r.Index)
	}
	if err := cli.PrintPairs(w, pairs...); err != nil {
		return err
	}
	var rows [][]string
	for _, m := range h.Members {
		recorded := ""
		if m.Recorded > 0 {
			recorded = strconv.FormatUint(m.Recorded, 10)
		}
		rows = append(rows, []string{m.NodeID, cli.YesNo(m.Voter), cli.YesNo(m.Self), recorded})
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return cli.PrintTable(w, strings.Split("MEMBER|VOTER|THIS DISK|LAST KNOWN INDEX", "|"), rows)
}
