package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/dev"
	"revoked/cmd/revoked/internal/offline"
	"revoked/internal/textsafe"
)

// maxLine bounds a printed line of an error, in bytes.
const maxLine = 4000

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs the program with args (without its name) and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &cli.Output{To: stdout}
	root := newRoot(out)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		err = out.Err
	}
	return exitCode(cmd, err, stderr)
}

// newRoot returns the command tree, which writes to stdout. Use a tree for one run only.
func newRoot(stdout io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "revoked",
		Short: "Revoke OAuth tokens everywhere at once",
		Long: "revoked keeps OAuth tokens revoked: after any node answered 200 to a revocation,\n" +
			"no node of the cluster answers active for that token again.\n\n" +
			"Start with:  revoked dev",
		SilenceUsage:  true, // the usage page would hide the error
		SilenceErrors: true,
		RunE:          needCommand,
		Args:          cobra.ArbitraryArgs,
	}
	root.SetOut(stdout) // the completion command copies it
	root.AddCommand(
		// These run or prepare nodes.
		dev.Command(), serverCommand(), healthcheckCommand(), certCommand(), keygenCommand(), versionCommand(),
		// These call a node, or work on a backup.
		joinCommand(), leaveCommand(), membersCommand(), statusCommand(), removeCommand(), transferLeaderCommand(),
		admitCommand(), admittedCommand(), joinTokenCommand(), promoteCommand(), demoteCommand(),
		tokenCommand(), explainCommand(), grantsCommand(),
		clientCommand(), issuerCommand(), revokeAllCommand(), revokeJTICommand(),
		settingsCommand(), snapshotCommand(), offline.RecoverCommand(), benchCommand(),
	)
	root.InitDefaultCompletionCmd() // before prepare, so that its usage errors exit with 64 too
	prepare(root)
	return root
}

// exitCode prints err, if any, and returns the exit code. It makes the text safe for a terminal:
// parts of it come from the network.
func exitCode(cmd *cobra.Command, err error, stderr io.Writer) int {
	if err == nil {
		return cli.ExitOK
	}
	var e *cli.ExitError
	if !errors.As(err, &e) {
		e = &cli.ExitError{Code: cli.ExitFailed, Err: err}
	}
	if e.Err != nil {
		prefix := "revoked: "
		for line := range strings.SplitSeq(e.Err.Error(), "\n") {
			fmt.Fprintf(stderr, "%s%s\n", prefix, textsafe.Clean(line, maxLine))
			prefix = ""
		}
	}
	if e.Code == cli.ExitUsage {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return e.Code
}
