// Package debug implements `revoked debug`. The command collects the state of nodes in one file, so
// that an operator can find out why a cluster does not work.
//
// The file appears whole or not at all, even if a node does not answer. The file lists each missing
// page with the reason. The file contains no secret: nodes do not show secrets on their pages, and
// the package replaces text that looks like a secret.
package debug

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/files"
)

// Command returns `revoked debug`. tool describes this program in the manifest, as JSON.
func Command(tool any) *cobra.Command {
	cmd := &cobra.Command{Use: "debug", Short: "Collect the state of nodes, to find a fault"}
	cmd.AddCommand(bundleCommand(tool))
	return cmd
}

func bundleCommand(tool any) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Collect the state of nodes in one file",
		Long: "Ask every node in --addr for status, members, settings, configuration, metrics, goroutines,\n" +
			"the newest log lines and, with pprof, the heap. Write the answers to one .tar.gz file of mode 0600.\n" +
			"The command waits at most --timeout for a node that does not answer. manifest.json lists what is\n" +
			"missing, with the reasons. The file has no token and no secret, but it has names of clients, nodes and\n" +
			"addresses: read it before you pass it on.\n" +
			"Exit code 1: at least one node did not send anything. The file is still written.",
		Example: "  revoked debug bundle -o bundle.tar.gz --addr https://node1:8443,https://node2:8443",
		Args:    cobra.NoArgs,
	}
	conn := call.AddConnectionFlags(cmd)
	name := cmd.Flags().StringP("output", "o", "", "file to write (default revoked-debug-TIME.tar.gz)")
	force := cmd.Flags().Bool("force", false, "replace the file if it exists")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		nodes, err := conn.OpenEach()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		b := &bundle{made: time.Now().UTC(), tool: tool}
		if *name == "" {
			*name = b.folder() + ".tar.gz"
		}
		err = files.Create(*name, *force, func(w io.Writer) error {
			b.collect(ctx, nodes)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return b.write(w)
		})
		if err != nil {
			return fmt.Errorf("write the bundle: %w", err)
		}
		return b.report(cmd, *name, conn)
	}
	return cmd
}

// report prints what is missing on standard error, and the name of the file on standard output. It
// returns an error if at least one node sent no page.
func (b *bundle) report(cmd *cobra.Command, name string, conn *call.Flags) error {
	silent := 0
	var cause error
	for _, n := range b.nodes {
		if len(n.pages) == 0 {
			silent++
			cause = n.missing[0].err
			continue
		}
		for _, m := range n.missing {
			fmt.Fprintf(cmd.ErrOrStderr(), "missing %s of %s: %s\n", m.name, n.addr, cli.Clean(m.err.Error()))
		}
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), name); err != nil {
		return err
	}
	if silent == 0 {
		return nil
	}
	return fmt.Errorf("received nothing from %d of %d nodes (%s is written and lists them): %w", silent, len(b.nodes),
		name, conn.Advise(cause))
}
