package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	buildinfo "runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/debug"
	"revoked/cmd/revoked/internal/dev"
	"revoked/cmd/revoked/internal/offline"
	"revoked/cmd/revoked/internal/server"
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
		Short: "Revoke OAuth tokens on every node of a cluster",
		Long: "revoked keeps OAuth tokens revoked: once a node has answered 200 to a revocation,\n" +
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
		tokenCommand(), explainCommand(), grantsCommand(), auditCommand(),
		clientCommand(), issuerCommand(), revokeAllCommand(), revokeJTICommand(),
		settingsCommand(), snapshotCommand(), offline.RecoverCommand(), debug.Command(readVersion()), benchCommand(),
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
	if e.Code != cli.ExitNegative {
		hintVariables(stderr)
	}
	if e.Code == cli.ExitUsage {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return e.Code
}

// hintVariables prints, after a failure, the variables that the user may have misspelled.
func hintVariables(stderr io.Writer) {
	for _, v := range config.UnknownVariables(os.Environ()) {
		if len(v.Near) > 0 {
			fmt.Fprintf(stderr, "revoked: %s\n", textsafe.Clean(v.String(), maxLine))
		}
	}
}

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = ""

// readVersion returns the build information. Missing values are empty, except the version, which is
// then "dev".
func readVersion() server.Build {
	v := server.Build{
		Version: cmp.Or(version, "dev"), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := buildinfo.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.time":
				v.Time = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := readVersion()
			asJSON, err := cli.WantJSON(output)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "revoked %s\n", v.Version)
			if v.Commit != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "commit  %s\n", v.Commit)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "go      %s %s\n", v.Go, v.Platform)
			return nil
		},
	}
	cli.AddOutputFlag(cmd, &output)
	return cmd
}
