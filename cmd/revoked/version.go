package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = ""

// A buildVersion is what the binary knows of its own making.
type buildVersion struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with changes not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readVersion never fails: what the build did not record stays empty, and the version is "dev".
func readVersion() buildVersion {
	v := buildVersion{
		Version:  version,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
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
	if v.Version == "" {
		v.Version = "dev"
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
			switch output {
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			case "table":
				fmt.Fprintf(cmd.OutOrStdout(), "revoked %s\n", v.Version)
				if v.Commit != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "commit  %s\n", v.Commit)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "go      %s %s\n", v.Go, v.Platform)
				return nil
			default:
				return usageError("-o takes table or json, not %q", output)
			}
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}
