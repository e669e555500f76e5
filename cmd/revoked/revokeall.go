package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func revokeAllCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke-all",
		Short: "End all tokens of a client, subject, session, grant or issuer",
		Long: "Make a cut-off: one entry that ends every token of the grants that match, issued at or before\n" +
			"a moment (default: now), also of those that are registered late. Selectors of different kinds\n" +
			"must all match. --dry-run counts the live grants that match and changes nothing; --expect N\n" +
			"refuses unless exactly N match.",
		Example: "  revoked revoke-all --subject alice --reason \"account taken over\"\n" +
			"  revoked revoke-all --client app --subject alice --dry-run",
		Args: cobra.NoArgs,
	}
	conn := addConnectionFlags(cmd)
	f := cmd.Flags()
	selectors := []struct {
		flag, key string
		values    *[]string
	}{
		{"client", "client_id", f.StringArray("client", nil, "client id")},
		{"subject", "subject", f.StringArray("subject", nil, "subject that authorized the grants")},
		{"session", "session", f.StringArray("session", nil, "login session at the authorization server")},
		{"grant", "grant_id", f.StringArray("grant", nil, "grant id")},
		{"issuer", "issuer", f.StringArray("issuer", nil, "issuer of the tokens")},
	}
	before := f.String("issued-before", "", "only tokens issued at or before it: Unix seconds or a date such as 2026-01-31T12:00:00Z (default: now)")
	dryRun := f.Bool("dry-run", false, "count the live grants that match; change nothing")
	expect := f.Int("expect", 0, "refuse unless so many live grants match")
	reason := f.String("reason", "", "why, for the audit trail")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		body := map[string]any{}
		for _, s := range selectors {
			switch {
			case len(*s.values) > 1:
				return usageError("--%s is given twice: all selectors must match, and no grant has two", s.flag)
			case len(*s.values) == 1 && (*s.values)[0] == "":
				return usageError("--%s is empty: an empty selector would match nothing, or too much", s.flag)
			case len(*s.values) == 1:
				body[s.key] = (*s.values)[0]
			}
		}
		if len(body) == 0 {
			return usageError("name what to revoke: --client, --subject, --session, --grant or --issuer")
		}
		if *before != "" {
			at, err := parseInstant(*before)
			if err != nil {
				return err
			}
			body["issued_before"] = at
		}
		if *dryRun {
			body["dry_run"] = true
		}
		if cmd.Flags().Changed("expect") {
			if *expect < 0 {
				return usageError("--expect cannot be negative")
			}
			body["expect"] = *expect
		}
		if *reason != "" {
			body["reason"] = *reason
		}
		return runRevokeAll(cmd, conn, body, *dryRun)
	}
	return cmd
}

func runRevokeAll(cmd *cobra.Command, conn *connection, body map[string]any, dryRun bool) error {
	c, err := jsonCall("revoke all that match", http.MethodPost, "/v1/revocations", body)
	if err != nil {
		return err
	}
	a, err := conn.open()
	if err != nil {
		return err
	}
	// A repeat after a cut-off that was made finds nothing live any more and fails an --expect.
	_, c.once = body["expect"]
	out, err := a.do(cmd.Context(), c)
	if err != nil {
		return err
	}
	type result struct {
		Index   uint64 `json:"index"`
		Matched *int   `json:"matched"`
	}
	return answer(cmd, a, c.what, out, func(w io.Writer, r result) error {
		matched := "not counted"
		if r.Matched != nil {
			matched = strconv.Itoa(*r.Matched)
		}
		if dryRun {
			fmt.Fprintln(cmd.ErrOrStderr(), "dry run: nothing was changed")
			return printTable(w, []string{"MATCHED"}, [][]string{{matched}})
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "revoked: no node calls a token that matches active any more")
		return printTable(w, []string{"INDEX", "MATCHED"}, [][]string{{strconv.FormatUint(r.Index, 10), matched}})
	})
}

// parseInstant reads Unix seconds or an RFC 3339 date and returns Unix seconds.
func parseInstant(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n <= 0 || n > 1<<40 {
			return 0, usageError("--issued-before: %d is not a moment in Unix seconds", n)
		}
		return n, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, usageError("--issued-before takes Unix seconds or a date such as 2026-01-31T12:00:00Z")
	}
	return t.Unix(), nil
}
