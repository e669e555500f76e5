package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

func revokeAllCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke-all",
		Short: "Revoke all tokens of a client, subject, session, grant or issuer",
		Long: "Create a cut-off: it revokes every token of the matching grants that was issued at or before a\n" +
			"time (default: now), including tokens registered later. Selectors of different kinds must all\n" +
			"match. --dry-run counts the active grants that match and changes nothing. --expect N fails unless\n" +
			"exactly N match.",
		Example: "  revoked revoke-all --subject alice --reason \"account taken over\"\n" +
			"  revoked revoke-all --client app --subject alice --dry-run",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	cut := &client.Cutoff{}
	selectors := []struct {
		flag   string
		field  *string
		values *[]string
	}{
		{"client", &cut.ClientID, f.StringArray("client", nil, "client id")},
		{"subject", &cut.Subject, f.StringArray("subject", nil, "subject that authorized the grants")},
		{"session", &cut.Session, f.StringArray("session", nil, "login session at the authorization server")},
		{"grant", &cut.GrantID, f.StringArray("grant", nil, "grant id")},
		{"issuer", &cut.Issuer, f.StringArray("issuer", nil, "issuer of the tokens")},
	}
	before := f.String("issued-before", "",
		"only tokens issued at or before this time: Unix seconds, 2026-01-31 (00:00 UTC) or 2026-01-31T12:00:00Z "+
			"(default: now)")
	f.BoolVar(&cut.DryRun, "dry-run", false, "count the active grants that match; change nothing")
	expect := f.Int("expect", 0, "fail unless exactly this many active grants match")
	f.StringVar(&cut.Reason, "reason", "", "reason, shown in the feed")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		selected := false
		for _, s := range selectors {
			switch {
			case len(*s.values) > 1:
				return cli.UsageError("--%s is given twice: all selectors must match, and a grant has only one %[1]s", s.flag)
			case len(*s.values) == 1 && (*s.values)[0] == "":
				return cli.UsageError("--%s is empty", s.flag)
			case len(*s.values) == 1:
				*s.field, selected = (*s.values)[0], true
			}
		}
		if !selected {
			return cli.UsageError("select what to revoke: --client, --subject, --session, --grant or --issuer")
		}
		if *before != "" {
			var err error
			if cut.IssuedBefore, err = parseInstant(*before); err != nil {
				return err
			}
		}
		if f.Changed("expect") {
			if *expect < 0 {
				return cli.UsageError("--expect cannot be negative")
			}
			cut.Expect = expect
		}
		return nil
	}
	return call.Command(cmd,
		func(c *client.Client, ctx context.Context, _ []string) (client.Answer[client.CutoffResult], error) {
			return c.RevokeAll(ctx, *cut)
		},
		func(cmd *cobra.Command, r client.CutoffResult) error { return printCutoff(cmd, cut.DryRun, r) })
}

// printCutoff prints the effect of a cut-off. If dryRun is set, that is the effect it would have.
func printCutoff(cmd *cobra.Command, dryRun bool, r client.CutoffResult) error {
	matched := "not counted"
	if r.Matched != nil {
		matched = strconv.Itoa(*r.Matched)
	}
	done, heading, row := "revoked: no node answers active for a token that matches",
		[]string{"INDEX", "MATCHED"}, []string{strconv.FormatUint(r.Index, 10), matched}
	if dryRun {
		done, heading, row = "dry run: nothing was changed", heading[1:], row[1:]
	}
	if _, err := fmt.Fprintln(cmd.ErrOrStderr(), done); err != nil {
		return err
	}
	return cli.PrintTable(cmd.OutOrStdout(), heading, [][]string{row})
}

// parseInstant parses Unix seconds, an RFC 3339 date and time, or a date, which means 00:00 UTC. It
// returns Unix seconds.
func parseInstant(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n <= 0 || n > 1<<40 {
			return 0, cli.UsageError("--issued-before: %d is out of range for Unix seconds", n)
		}
		return n, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Unix() <= 0 {
				return 0, cli.UsageError("--issued-before: got %q, want a time after 1970-01-01", s)
			}
			return t.Unix(), nil
		}
	}
	return 0, cli.UsageError("--issued-before: want Unix seconds, a date such as 2026-01-31 (00:00 UTC), " +
		"or a date and time with its zone such as 2026-01-31T12:00:00Z")
}
