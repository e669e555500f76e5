package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/server"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = ""

// readVersion returns the build information. Missing values are empty, except the version, which is
// then "dev".
func readVersion() server.Build {
	v := server.Build{
		Version: cmp.Or(version, "dev"), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
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
