package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot returns the whole tree of commands, which write to stdout. A tree is used for one run.
func newRoot(stdout io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "revoked",
		Short: "Revoke OAuth tokens everywhere at once",
		Long: "revoked keeps OAuth tokens revoked: once any node has answered 200 to a revocation,\n" +
			"no node of the cluster calls that token active again.\n\n" +
			"Start with:  revoked dev",
		SilenceUsage:  true, // report says what is wrong; the page of help would bury it
		SilenceErrors: true,
		RunE:          needCommand,
		Args:          cobra.ArbitraryArgs,
	}
	root.SetOut(stdout) // before the command for completions is made, which takes it then
	root.AddCommand(serverCommands()...)
	root.AddCommand(clientCommands()...)
	root.InitDefaultCompletionCmd() // now, so that it tells wrong usage as the others do
	prepare(root)
	return root
}

// serverCommands are the commands that run or prepare nodes; clientCommands those that talk to one.
func serverCommands() []*cobra.Command {
	return []*cobra.Command{
		devCommand(),
		serverCommand(),
		healthcheckCommand(),
		certCommand(),
		keygenCommand(),
		versionCommand(),
	}
}

// prepare makes every command of the tree tell wrong usage from failure: wrong flags, wrong
// arguments and unknown commands end with 64.
func prepare(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	if args := cmd.Args; args != nil {
		cmd.Args = func(c *cobra.Command, given []string) error {
			if err := args(c, given); err != nil {
				return usageError("%w", err)
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil {
		cmd.RunE, cmd.Args = needCommand, cobra.ArbitraryArgs
	}
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

// needCommand runs where a command is only a group of others.
func needCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), cmd.UsageString())
		return usageError("no command given")
	}
	if args[0] == "recover" && !cmd.HasParent() { // else it is taken for a slip of remove, which is no help to whoever has lost a quorum
		return usageError(`there is no command "recover" yet: docs/operate.md, "Quorum lost", says what to do`)
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError("%s", msg)
}
