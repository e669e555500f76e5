package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

// defaultSetting selects the default of a setting in `revoked settings set`.
const defaultSetting = "default"

func settingsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Read and change the replicated settings",
		Long: "Read and change the settings that are part of the replicated state and the same on every node.\n" +
			"The configuration file sets them only when the cluster is bootstrapped.",
	}
	cmd.AddCommand(settingsGetCommand(), settingsSetCommand())
	return cmd
}

func settingsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get [KEY]",
		Short:   "Show the replicated settings, or only the value of one",
		Example: "  revoked settings get\n  revoked settings get lease_duration",
		Args:    cobra.MaximumNArgs(1),
		PreRunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return checkSetting(args[0])
		},
	}
	conn := call.AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return call.Run(cmd, conn, args, call.WithoutArgs((*client.Client).Settings),
			func(cmd *cobra.Command, s client.Settings) error {
				if len(args) == 0 {
					return printSettings(cmd, s)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), cli.Clean(s[args[0]]))
				return err
			})
	}
	return cmd
}

func settingsSetCommand() *cobra.Command {
	var changes map[string]*string
	return call.Command(&cobra.Command{
		Use:   "set KEY=VALUE...",
		Short: "Change replicated settings",
		Long: "Change replicated settings and print all of them. The other settings keep their values. The value\n" +
			`"default" restores the default. The changes of one call take effect together or not at all.`,
		Example: "  revoked settings set secret_grace=48h\n" +
			"  revoked settings set secret_grace=default cutoff_retention=9600h",
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(_ *cobra.Command, args []string) (err error) {
			changes, err = parseSettings(args)
			return err
		},
	}, func(c *client.Client, ctx context.Context, _ []string) (client.Answer[client.Settings], error) {
		return c.UpdateSettings(ctx, changes)
	}, printSettings)
}

// parseSettings parses arguments of the form KEY=VALUE.
func parseSettings(args []string) (map[string]*string, error) {
	changes := make(map[string]*string, len(args))
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok || value == "" {
			return nil, cli.UsageError("%s needs a value: KEY=VALUE, such as secret_grace=48h, or KEY=%s",
				cli.ShellQuote(arg), defaultSetting)
		}
		if err := checkSetting(key); err != nil {
			return nil, err
		}
		if _, twice := changes[key]; twice {
			return nil, cli.UsageError("%s is given twice", key)
		}
		if changes[key] = &value; value == defaultSetting {
			changes[key] = nil
		}
	}
	return changes, nil
}

// checkSetting returns a usage error unless key is the name of a replicated setting.
func checkSetting(key string) error {
	var names []string
	near := &cobra.Command{SuggestionsMinimumDistance: 2} // cobra compares the names of commands
	for _, r := range revoked.SettingRules() {
		if r.Name == key {
			return nil
		}
		names = append(names, r.Name)
		near.AddCommand(&cobra.Command{Use: r.Name, Run: func(*cobra.Command, []string) {}})
	}
	like := near.SuggestionsFor(strings.ReplaceAll(strings.ToLower(key), "-", "_"))
	if len(like) == 0 {
		return cli.UsageError("unknown setting %s; the replicated settings are %s", cli.ShellQuote(key),
			strings.Join(names, ", "))
	}
	return cli.UsageError("unknown setting %s; did you mean %s?", cli.ShellQuote(key), strings.Join(like, " or "))
}

// printSettings prints the settings in the order of the documentation.
func printSettings(cmd *cobra.Command, s client.Settings) error {
	var rows [][]string
	for _, r := range revoked.SettingRules() {
		if value, ok := s[r.Name]; ok { // an older node lacks the newer settings
			rows = append(rows, []string{r.Name, value})
		}
	}
	return cli.PrintTable(cmd.OutOrStdout(), []string{"SETTING", "VALUE"}, rows)
}
