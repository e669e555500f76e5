package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/client"
	"revoked/cmd/revoked/internal/audit"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/input"
)

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain FILE|-",
		Short: "Explain why a token is active or not",
		Long: "Explain which rule makes a token active or inactive, and who revoked it. With --as, answer for another\n" +
			"caller of introspection, such as a resource server. Exit code 0: active. 2: not active.\n" +
			"1: no node could answer. Clients with the role viewer may ask too, but see no subject or session.",
		Example: "  revoked explain --as resource_server token.txt",
		Args:    cobra.ExactArgs(1),
	}
	as := cmd.Flags().String("as", "", "client id of the caller (default: a caller that may see every token)")
	var token string
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		token, err = input.Token(cmd, args[0])
		return err
	}
	return call.Command(cmd, func(c *client.Client, ctx context.Context, _ []string) (
		client.Answer[client.Explanation], error) {
		return c.Explain(ctx, token, *as)
	}, printExplanation, func(_ *cobra.Command, x client.Explanation) error {
		if !x.Active {
			return cli.Negative()
		}
		return nil
	})
}

func printExplanation(cmd *cobra.Command, x client.Explanation) error {
	pairs := []any{"active", x.Active}
	add := func(name, value string) {
		if value != "" {
			pairs = append(pairs, name, value)
		}
	}
	add("reason", x.Reason)
	add("issuer_reason", x.IssuerReason)
	add("kind", x.Kind)
	if e := x.Revoked; e != nil {
		add("revoked", ending(e.By, dateText(e.At), e.Reason, e.Index))
	}
	if c := x.Cutoff; c != nil {
		add("cutoff", ending(c.By, dateText(c.At), c.Reason, c.Index))
		add("cutoff_issued_before", dateText(c.IssuedBefore))
		add("cutoff_selector", rawText(c.Selector))
		if c.Withheld {
			add("cutoff_withheld", "the selector has conditions that only administrators see")
		}
	}
	for _, p := range [...]struct{ name, value string }{
		{"grant_id", x.GrantID}, {"client_id", x.ClientID}, {"subject", x.Subject}, {"session", x.Session},
		{"issuer", x.Issuer}, {"jti", x.JTI}, {"issued_at", withDate(x.IssuedAt, rawText(x.IssuedAt))},
		{"expires_at", withDate(x.ExpiresAt, rawText(x.ExpiresAt))}, {"audience", strings.Join(x.Audience, " ")},
		{"scope", x.Scope}, {"node", x.Node}, {"applied_index", fmt.Sprint(x.AppliedIndex)},
	} {
		add(p.name, p.value)
	}
	if x.LeaseLeftMS > 0 {
		add("lease_left", formatMillis(x.LeaseLeftMS))
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

func auditCommand() *cobra.Command {
	cmd := audit.Command()
	cmd.AddCommand(auditTokenCommand())
	return cmd
}

func auditTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token FILE|-",
		Short: "Show whether a token was active at a given time",
		Long: "Show whether a token was active at a given time, when and why it became inactive, when that was final, and\n" +
			"which nodes could still answer active until then. Only the SHA-256 of the token leaves this\n" +
			"machine. Exit code 0: it was active. 2: it was not, or the cluster no longer has the records.",
		Example: "  revoked audit token token.txt --at 2026-09-21T14:13:20Z",
		Args:    cobra.ExactArgs(1),
	}
	at := cmd.Flags().String("at", "", "time in Unix seconds or RFC 3339; default: now")
	var digest string
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		token, err := input.Token(cmd, args[0])
		digest = revoked.DigestToken(token).String()
		return err
	}
	return call.Command(cmd, func(c *client.Client, ctx context.Context, _ []string) (
		client.Answer[client.PastAnswer], error) {
		return c.AsOf(ctx, digest, *at)
	}, printPast, func(_ *cobra.Command, x client.PastAnswer) error {
		if x.State != "active" {
			return cli.Negative()
		}
		return nil
	})
}

func printPast(cmd *cobra.Command, x client.PastAnswer) error {
	pairs := []any{"state", x.State, "at", withDate(x.At, rawText(x.At))}
	add := func(name, value string) {
		if value != "" {
			pairs = append(pairs, name, value)
		}
	}
	add("since", withDate(x.Since, rawText(x.Since)))
	add("until", withDate(x.Until, rawText(x.Until)))
	add("reason", x.Reason)
	if x.Index != 0 {
		add("index", fmt.Sprint(x.Index))
	}
	add("applied_at", withDate(x.AppliedAt, rawText(x.AppliedAt)))
	add("acknowledged_at", withDate(x.AcknowledgedAt, rawText(x.AcknowledgedAt)))
	add("acknowledged_before", withDate(x.AcknowledgedBefore, rawText(x.AcknowledgedBefore)))
	add("waited_for", strings.Join(x.WaitedFor, " "))
	add("digest", x.Digest)
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

// ending describes who revoked a token, when and why.
func ending(by, at, reason string, index uint64) string {
	text := fmt.Sprintf("by %s at %s, log index %d", by, at, index)
	if reason != "" {
		text += ": " + reason
	}
	return text
}

func grantsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grants",
		Short: "List the grants of a client, subject, session or issuer",
		Long: "List the registered grants that match. Selectors of different kinds must all match. A list by\n" +
			"issuer alone reads every grant.",
		Example: "  revoked grants --subject alice --state active",
		Args:    cobra.NoArgs,
	}
	var q client.GrantQuery
	f := cmd.Flags()
	f.StringVar(&q.ClientID, "client", "", "client id")
	f.StringVar(&q.Subject, "subject", "", "subject that authorized the grants")
	f.StringVar(&q.Session, "session", "", "login session at the authorization server")
	f.StringVar(&q.Issuer, "issuer", "", "issuer of the tokens")
	f.StringVar(&q.State, "state", "", "active, revoked or expired (default: any)")
	f.StringVar(&q.After, "after", "", "grant id after which the list begins")
	f.IntVar(&q.Limit, "limit", 100, "maximum number of grants to list, 1 to 1000")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch {
		case q.ClientID == "" && q.Subject == "" && q.Session == "" && q.Issuer == "":
			return cli.UsageError("select what to list: --client, --subject, --session or --issuer")
		case q.State != "" && q.State != "active" && q.State != "revoked" && q.State != "expired":
			return cli.UsageError("--state must be active, revoked or expired")
		case q.Limit < 1 || q.Limit > 1000:
			return cli.UsageError("--limit must be 1 to 1000")
		}
		return nil
	}
	return call.Command(cmd, func(c *client.Client, ctx context.Context, _ []string) (
		client.Answer[client.GrantPage], error) {
		return c.Grants(ctx, q)
	}, printGrants, func(cmd *cobra.Command, p client.GrantPage) (err error) {
		if p.Next != "" {
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "more grants may match: add --after %s\n", cli.ShellQuote(cli.Clean(p.Next)))
		}
		return err
	})
}

func printGrants(cmd *cobra.Command, p client.GrantPage) error {
	var rows [][]string
	for _, g := range p.Grants {
		expires := "never"
		if string(g.ExpiresAt) != "null" {
			expires = withDate(g.ExpiresAt, rawText(g.ExpiresAt))
		}
		rows = append(rows, []string{g.GrantID, g.State, g.ClientID, g.Subject, g.Session, g.Issuer, fmt.Sprint(g.TokenCount),
			withDate(g.CreatedAt, rawText(g.CreatedAt)), expires})
	}
	return cli.PrintTable(cmd.OutOrStdout(), []string{
		"GRANT", "STATE", "CLIENT", "SUBJECT", "SESSION", "ISSUER", "TOKENS", "CREATED", "EXPIRES",
	}, rows)
}
