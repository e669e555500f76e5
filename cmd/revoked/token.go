package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/input"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Register, revoke and introspect tokens",
		Long: "Register, revoke and introspect tokens. A token comes from a file or from standard input (-),\n" +
			"never from the command line, which every user of the machine can read.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return needCommand(cmd, args)
			}
			return cli.UsageError("unknown command below token%s", suggestCommand(cmd, args)) // args may contain a token
		},
	}
	cmd.AddCommand(
		tokenRegisterCommand(),
		tokenCallCommand("revoke FILE|-", "Revoke a token and its whole grant",
			"Revoke a token and all tokens of its grant. Exits with 0 once the revocation is final on every\n"+
				"node, even if the token was inactive or unknown. Only an administrator learns that it was unknown.",
			(*client.Client).Revoke, printRevocation, warnUnknown),
		tokenCallCommand("introspect FILE|-", "Ask whether a token is active",
			"Ask whether a token is active. Exit code 0: active. 2: not active. 1: no node could answer.",
			(*client.Client).Introspect, printIntrospection, func(_ *cobra.Command, i client.Introspection) error {
				if !i.Active() {
					return cli.Negative()
				}
				return nil
			}),
	)
	return cmd
}

// printRevocation prints the effect of a revocation, unless warnUnknown warns that it had none.
func printRevocation(cmd *cobra.Command, r client.Revocation) (err error) {
	if r.Outcome != outcomeUnknown {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "revoked: no node answers active for a token of this grant")
	}
	return err
}

const outcomeUnknown = "unknown"

// warnUnknown warns an administrator that the token may be a typo.
func warnUnknown(cmd *cobra.Command, r client.Revocation) (err error) {
	if r.Outcome == outcomeUnknown {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "unknown token: recorded, but nothing was revoked; "+
			"it is inactive from the start if it is registered within late_registration_window")
	}
	return err
}

// tokenCallCommand returns a command that reads one token and calls do with it and its hint.
func tokenCallCommand[T any](
	use, short, long string, do func(c *client.Client, ctx context.Context, token, hint string) (client.Answer[T], error),
	table func(*cobra.Command, T) error, after ...func(*cobra.Command, T) error,
) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1)}
	hint := cmd.Flags().String("hint", "", "token_type_hint: access_token or refresh_token; never needed")
	var token string
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		token, err = input.Token(cmd, args[0])
		return err
	}
	return call.Command(cmd, func(c *client.Client, ctx context.Context, _ []string) (client.Answer[T], error) {
		return do(c, ctx, token, *hint)
	}, table, after...)
}

// printIntrospection prints active first, then the other members, sorted by name.
func printIntrospection(cmd *cobra.Command, fields client.Introspection) error {
	pairs := []any{"active", rawText(fields["active"])}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name == "active" {
			continue
		}
		text := rawText(fields[name])
		if name == "exp" || name == "iat" || name == "nbf" {
			text = withDate(fields[name], text)
		}
		pairs = append(pairs, cli.Clean(name), text)
	}
	if !fields.Active() {
		fmt.Fprintln(cmd.ErrOrStderr(), "not active for this client: "+
			"the token is inactive or unknown, or its audience is another resource server (revoked client show ID)")
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

// rawText formats a JSON value: strings without quotes, lists of strings separated by spaces.
func rawText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return strings.Join(list, " ")
	}
	return string(raw)
}

func withDate(raw json.RawMessage, text string) string {
	var sec float64
	if string(raw) == "null" || json.Unmarshal(raw, &sec) != nil || sec < 0 || sec > 1<<40 {
		return text
	}
	return text + " (" + cli.Date(int64(sec)) + ")"
}
