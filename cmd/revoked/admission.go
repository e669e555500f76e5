package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

func admitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "admit NODE",
		Short: "Admit a node to the cluster, or withdraw the admission",
		Long: "Allow the node with this name to join the cluster until --ttl has passed. A node that was removed is\n" +
			"barred until you admit it again. Members stay admitted, and a member that lost its disk may\n" +
			"return. With --withdraw, end the admission of a node that has not joined.",
		Example: "  revoked admit node4\n  revoked admit replica1 --non-voter --ttl 24h\n  revoked admit node4 --withdraw",
		Args:    cobra.ExactArgs(1),
	}
	a := client.Admission{}
	f := cmd.Flags()
	ttl := addAdmissionFlags(f, &a)
	withdraw := f.Bool("withdraw", false, "end the admission instead")
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if *withdraw && (f.Changed("ttl") || f.Changed("non-voter")) {
			return cli.UsageError("cannot combine --withdraw with --ttl or --non-voter")
		}
		a.Node, a.TTL = args[0], ttl.String()
		return nil
	}
	conn := call.AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		done := "admitted " + args[0] + " for " + a.TTL
		do := func(c *client.Client, ctx context.Context, _ []string) (client.Answer[client.Applied], error) {
			return c.Admit(ctx, a)
		}
		if *withdraw {
			done, do = args[0]+" is no longer admitted", call.WithArg((*client.Client).WithdrawAdmission)
		}
		return call.Run(cmd, conn, args, do, func(cmd *cobra.Command, a client.Applied) error {
			_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s (log index %d)\n", cli.Clean(done), a.Index)
			return err
		})
	}
	return cmd
}

// addAdmissionFlags adds the flags that an admission and a join token share.
func addAdmissionFlags(f *pflag.FlagSet, a *client.Admission) *time.Duration {
	f.BoolVar(&a.NonVoter, "non-voter", false, "the node does not vote until you promote it")
	return f.Duration("ttl", time.Hour, "how long the node may join, 1s to 720h")
}

func admittedCommand() *cobra.Command {
	return call.Command(&cobra.Command{
		Use:   "admitted",
		Short: "List the nodes that may join, that are members, or that are barred",
		Args:  cobra.NoArgs,
	}, call.WithoutArgs((*client.Client).Admitted), func(cmd *cobra.Command, l client.AdmittedNodes) error {
		var rows [][]string
		for _, n := range l.Nodes {
			rows = append(rows, []string{n.Node, n.State, cli.YesNo(n.NonVoter), formatTime(n.ExpiresAt), n.By})
		}
		return cli.PrintTable(cmd.OutOrStdout(), []string{"NODE", "STATE", "NON-VOTER", "EXPIRES", "BY"}, rows)
	})
}

func promoteCommand() *cobra.Command {
	return call.Change(&cobra.Command{
		Use:   "promote NODE",
		Short: "Make a member a voter",
		Long: "Give a vote to a member that was demoted or admitted as a non-voter. The cluster refuses if the\n" +
			"member has not caught up, or if its own settings have non_voter.",
		Args: cobra.ExactArgs(1),
	}, call.WithArg((*client.Client).Promote), "promoted ARG")
}

func demoteCommand() *cobra.Command {
	return call.Change(&cobra.Command{
		Use:   "demote NODE",
		Short: "Make a member a non-voter",
		Long: "Make a member a non-voter until you promote it. It still answers introspections and forwards\n" +
			"writes. The cluster refuses if it would lose quorum.",
		Args: cobra.ExactArgs(1),
	}, call.WithArg((*client.Client).Demote), "demoted ARG")
}

func joinTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "join-token", Short: "Manage one-time tokens that admit a node"}
	cmd.AddCommand(joinTokenCreateCommand(), joinTokenListCommand(),
		call.Change(&cobra.Command{
			Use: "delete ID", Short: "Delete a join token: it no longer admits a node", Args: cobra.ExactArgs(1),
		}, call.WithArg((*client.Client).DeleteJoinToken), "deleted join token ARG"))
	return cmd
}

func joinTokenCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a join token; it is shown only once",
		Long: "Create a token that admits one node, once. The server keeps only a hash. The token is shown only\n" +
			"this once or, with --token-out, written to a new file that only you can read. Set\n" +
			"join_token_file on the new node to a copy of this file.",
		Example: "  revoked join-token create --node node4 --token-out node4.token",
		Args:    cobra.NoArgs,
	}
	a := client.Admission{}
	f := cmd.Flags()
	ttl := addAdmissionFlags(f, &a)
	f.StringVar(&a.Node, "node", "", "the only node that may use the token (default: any)")
	file := f.String("token-out", "", "write the token to this new file (mode 0600) instead of printing it")
	conn := call.AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a.TTL = ttl.String()
		return createJoinToken(cmd, conn, a, *file)
	}
	return cmd
}

func createJoinToken(cmd *cobra.Command, conn *call.Flags, a client.Admission, file string) error {
	c, asJSON, err := conn.Open()
	if err != nil {
		return err
	}
	var f *os.File // created before the call: a token that cannot be stored must not be created
	if file != "" {
		if f, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("write the token: %w", err)
		}
		defer f.Close()
	}
	made, err := c.CreateJoinToken(cmd.Context(), a)
	if err != nil {
		if f != nil {
			_ = os.Remove(file) // the file is still empty
		}
		return conn.Advise(err)
	}
	t := made.Value
	if f != nil {
		if err := writeSecret(f, t.Token); err != nil {
			return fmt.Errorf("the join token %s was created, but it could not be written: %w; delete it and create another",
				cli.Clean(t.ID), err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "the token is in %s\n", file)
		if made.Body, err = without(made.Body, "token"); err != nil {
			return err
		}
	}
	if asJSON {
		return cli.PrintBody(cmd.OutOrStdout(), made.Body)
	}
	pairs := []any{"id", t.ID, "expires_at", formatTime(&t.ExpiresAt)}
	if f == nil {
		pairs = append(pairs, "token", t.Token)
	}
	if err := cli.PrintPairs(cmd.OutOrStdout(), pairs...); err != nil || f != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), "keep the token: it is not shown again")
	return err
}

func joinTokenListCommand() *cobra.Command {
	return call.Command(&cobra.Command{
		Use:   "list",
		Short: "List the join tokens, without the tokens themselves",
		Long:  "List the join tokens. A used or expired token is listed for another day.",
		Args:  cobra.NoArgs,
	}, call.WithoutArgs((*client.Client).JoinTokens), func(cmd *cobra.Command, l client.JoinTokens) error {
		var rows [][]string
		for _, t := range l.JoinTokens {
			rows = append(rows, []string{
				t.ID, t.State, t.Node, cli.YesNo(t.NonVoter), formatTime(&t.ExpiresAt), t.By, t.UsedBy,
			})
		}
		return cli.PrintTable(cmd.OutOrStdout(),
			[]string{"ID", "STATE", "NODE", "NON-VOTER", "EXPIRES", "BY", "USED BY"}, rows)
	})
}

// formatTime formats Unix seconds; nil is "never".
func formatTime(seconds *float64) string {
	if seconds == nil {
		return "never"
	}
	return cli.Date(int64(*seconds))
}
