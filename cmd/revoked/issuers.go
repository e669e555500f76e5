package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/input"
)

// maxIssuerFile bounds the file of an issuer, in bytes. A key set takes most of it.
const maxIssuerFile = 320 << 10

func issuerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issuer",
		Short: "Manage trusted issuers of JWTs",
		Long: "Manage trusted issuers. Every node verifies their JWTs with their keys, so their tokens need no\n" +
			"registration.",
	}
	cmd.AddCommand(
		issuerCreateCommand(),
		issuerListCommand(),
		call.Command(&cobra.Command{Use: "show NAME", Short: "Show an issuer and its keys", Args: cobra.ExactArgs(1)},
			call.WithArg((*client.Client).Issuer), printIssuer),
		issuerUpdateCommand(),
		issuerStateCommand("disable NAME", "Make the tokens of an issuer inactive until you enable it again", true),
		issuerStateCommand("enable NAME", "Enable an issuer that was disabled", false),
		call.Change(&cobra.Command{
			Use: "delete NAME", Short: "Delete an issuer and revoke all of its tokens", Args: cobra.ExactArgs(1),
		}, call.WithArg((*client.Client).DeleteIssuer), "deleted ARG; all of its tokens are revoked"),
		call.Command(&cobra.Command{
			Use: "refresh NAME", Short: "Make the leader fetch the keys of an issuer now", Args: cobra.ExactArgs(1),
		}, call.WithArg((*client.Client).RefreshIssuer), func(cmd *cobra.Command, r client.Refreshed) error {
			text := map[bool]string{true: "have changed", false: "are the same"}[r.Changed]
			_, err := fmt.Fprintf(cmd.ErrOrStderr(), "fetched: the keys %s (log index %d)\n", text, r.Index)
			return err
		}),
		call.Change(&cobra.Command{
			Use: "ban-key NAME THUMBPRINT", Short: "Ban a key of an issuer permanently; tokens that it signed become inactive",
			Args: cobra.ExactArgs(2),
		}, func(c *client.Client, ctx context.Context, args []string) (client.Answer[client.Applied], error) {
			return c.BanIssuerKey(ctx, args[0], args[1])
		}, "banned a key of ARG; tokens that it signed are inactive"),
		issuerCheckCommand(),
	)
	return cmd
}

func issuerCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create FILE|-",
		Short: "Trust an issuer",
		Long: "Trust the issuer that a JSON file describes. name, issuer (the iss claim), and either\n" +
			"jwks_uri or jwks (its keys) are required. Members that are absent get their defaults.",
		Example: "  revoked issuer create as.json\n" +
			`  echo '{"name":"as","issuer":"https://as.example","jwks_uri":"https://as.example/jwks"}' |` + "\n" +
			"    revoked issuer create -",
		Args: cobra.ExactArgs(1),
	}
	return issuerFileCommand(cmd, 0, func(c *client.Client, ctx context.Context, _ []string, record json.RawMessage) (
		client.Answer[client.Issuer], error) {
		return c.CreateIssuer(ctx, record)
	})
}

func issuerUpdateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update NAME FILE|-",
		Short: "Change an issuer by a JSON merge patch",
		Long: "Change the members of an issuer that a JSON file contains. null sets a member to its default. Keys\n" +
			"that a new jwks lacks are retired: tokens that they signed become inactive.",
		Args: cobra.ExactArgs(2),
	}
	return issuerFileCommand(cmd, 1, func(c *client.Client, ctx context.Context, args []string, patch json.RawMessage) (
		client.Answer[client.Issuer], error) {
		return c.UpdateIssuer(ctx, args[0], patch)
	})
}

// issuerFileCommand completes cmd, which sends a JSON file. The name of the file is args[file].
func issuerFileCommand(cmd *cobra.Command, file int, do func(
	*client.Client, context.Context, []string, json.RawMessage) (client.Answer[client.Issuer], error)) *cobra.Command {
	var record json.RawMessage
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		record, err = readRecord(cmd, args[file])
		return err
	}
	return call.Command(cmd, func(c *client.Client, ctx context.Context, args []string) (
		client.Answer[client.Issuer], error) {
		return do(c, ctx, args, record)
	}, printIssuer)
}

// readRecord reads a JSON object from a file, or from standard input if name is "-".
func readRecord(cmd *cobra.Command, name string) (json.RawMessage, error) {
	b, err := input.Read(cmd, name, maxIssuerFile+1)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the issuer: %w", err)
	case len(b) > maxIssuerFile:
		return nil, fmt.Errorf("read the issuer: file too long (want at most %d bytes)", maxIssuerFile)
	}
	b = []byte(strings.TrimPrefix(string(b), "\ufeff"))
	if !json.Valid(b) {
		return nil, errors.New("read the issuer: the file is not JSON")
	}
	return b, nil
}

func issuerStateCommand(use, short string, disabled bool) *cobra.Command {
	return call.Command(&cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1)},
		func(c *client.Client, ctx context.Context, args []string) (client.Answer[client.Issuer], error) {
			return c.UpdateIssuer(ctx, args[0], json.RawMessage(fmt.Sprintf(`{"disabled":%t}`, disabled)))
		}, printIssuer)
}

func issuerState(i client.Issuer) string {
	return map[bool]string{false: "enabled", true: "disabled"}[i.Disabled]
}

func issuerListCommand() *cobra.Command {
	return call.Command(&cobra.Command{Use: "list", Short: "List the trusted issuers", Args: cobra.NoArgs},
		call.WithoutArgs((*client.Client).Issuers), func(cmd *cobra.Command, l client.Issuers) error {
			var rows [][]string
			for _, i := range l.Issuers {
				active := 0
				for _, k := range i.Keys {
					if k.State == "active" {
						active++
					}
				}
				state, _ := fetchState(i)
				rows = append(rows, []string{i.Name, i.Issuer, issuerState(i), fmt.Sprint(active), state})
			}
			return cli.PrintTable(cmd.OutOrStdout(), []string{"NAME", "ISSUER", "STATE", "ACTIVE KEYS", "FETCH"}, rows)
		})
}

// fetchState describes the last fetch of an issuer's keys, with the reason for a failure.
func fetchState(i client.Issuer) (state, reason string) {
	switch f := i.Fetch; {
	case i.JWKSURI == "":
		return "given", ""
	case f == nil:
		return "unknown", "the leader did not report it"
	case f.OK:
		return "ok", ""
	case f.Error == "":
		return "none yet", ""
	default:
		return "failed", f.Error
	}
}

func printIssuer(cmd *cobra.Command, i client.Issuer) error {
	required := make([]string, 0, len(i.RequiredClaims))
	for name, value := range i.RequiredClaims {
		required = append(required, name+"="+value)
	}
	slices.Sort(required)
	types := make([]string, 0, len(i.TokenTypes))
	for _, t := range i.TokenTypes {
		types = append(types, map[bool]string{true: "(none)", false: t}[t == ""])
	}
	pairs := []any{"name", i.Name, "issuer", i.Issuer, "state", issuerState(i)}
	if i.JWKSURI != "" {
		pairs = append(pairs, "jwks_uri", i.JWKSURI)
	}
	pairs = append(pairs, "algorithms", i.Algorithms, "token_types", types, "required_claims", required,
		"forbidden_claims", i.ForbiddenClaims, "client_claim", i.ClientClaim, "session_claim", i.SessionClaim,
		"grant_claim", i.GrantClaim, "revoke_session", i.RevokeSession, "own_clients", i.OwnClients,
		"unknown_clients", i.UnknownClients, "require_audience", i.RequireAudience, "jti", i.JTI,
		"max_lifetime", i.MaxLifetime, "clock_skew", i.ClockSkew,
		"created_at", withDate(i.CreatedAt, rawText(i.CreatedAt)))
	if i.JWKSURI != "" {
		state, reason := fetchState(i)
		if reason != "" {
			state += ": " + reason
		}
		pairs = append(pairs, "fetch", state)
	}
	if f := i.Fetch; f != nil {
		pairs = append(pairs, "last_fetch", cmp.Or(withDate(f.At, rawText(f.At)), "none yet"),
			"next_fetch", cmp.Or(withDate(f.NextAt, rawText(f.NextAt)), "immediately"))
	}
	for _, k := range i.Keys {
		pairs = append(pairs, "key "+k.Thumbprint, strings.TrimSpace(k.State+" "+k.Algorithm+" "+k.KeyID))
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

func issuerCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check NAME FILE|-",
		Short: "Check a token against the record and the keys of an issuer",
		Long: "Verify a token with the keys of an issuer, and print why it cannot be active. Revocations do not\n" +
			"count. Exit code 0: verified. 2: not verified.",
		Args: cobra.ExactArgs(2),
	}
	var token string
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		token, err = input.Token(cmd, args[1])
		return err
	}
	return call.Command(cmd, func(c *client.Client, ctx context.Context, args []string) (
		client.Answer[client.TokenCheck], error) {
		return c.CheckToken(ctx, args[0], token)
	}, printTokenCheck, func(cmd *cobra.Command, t client.TokenCheck) error {
		if t.Verified {
			return nil
		}
		if text := explainCheck(t); text != "" {
			if _, err := fmt.Fprintln(cmd.ErrOrStderr(), text); err != nil {
				return err
			}
		}
		return cli.Negative()
	})
}

// checkSteps are the steps of a check in their order. Each has its reason, and a description of the
// tokens that fail it. The check stops at the first step that fails.
var checkSteps = [...]struct{ name, reason, problem string }{
	{"format", "format", "it is not a JWT in the compact form, or longer than 8,192 bytes"},
	{"issuer", "issuer", "its iss is not the issuer of the record, character for character"},
	{"alg", "alg", "the record or the key does not allow its alg"},
	{"kid", "kid", "the record has no key with its kid"},
	{"signature", "signature", "no key of the record made its signature"},
	{"typ", "typ", "the typ of its header is not in token_types"},
	{"claims", "claims", "iat, exp or a required claim is missing, or a claim is forbidden, too long or of a wrong type"},
	{"state of the key", "kid", "the key that made its signature is retired or banned"},
	{"lifetime", "lifetime", "the time from iat to exp is longer than max_lifetime was when it was issued"},
	{"audience", "audience", "it has no aud, and the record has require_audience"},
	{"disabled", "disabled", "the issuer is disabled"},
	{"expired", "expired", "its exp has passed"},
	{"not_yet_valid", "not_yet_valid", "its iat or nbf is ahead by more than clock_skew"},
}

// explainCheck lists the steps that a token passed, and describes the step that it failed. It
// returns "" for an unknown reason, which only a newer server sends.
func explainCheck(t client.TokenCheck) string {
	var passed []string
	for _, s := range checkSteps {
		// Two steps have the reason kid. A check with a thumbprint has passed the first of them.
		if s.reason == t.Reason && (s.name != "kid" || t.Thumbprint == "") {
			text := fmt.Sprintf("passed: %s; failed: %s: %s", cmp.Or(strings.Join(passed, ", "), "no step"), s.name, s.problem)
			if t.Claim != "" {
				text += fmt.Sprintf(" (here: %s)", t.Claim)
			}
			return text
		}
		passed = append(passed, s.name)
	}
	return ""
}

func printTokenCheck(cmd *cobra.Command, t client.TokenCheck) error {
	pairs := []any{"verified", t.Verified}
	for _, p := range [...]struct{ name, value string }{
		{"reason", t.Reason}, {"claim", t.Claim}, {"kid", t.KeyID}, {"thumbprint", t.Thumbprint}, {"client_id", t.ClientID},
		{"sub", t.Subject}, {"session", t.Session}, {"grant", t.Grant}, {"jti", t.JTI},
		{"iat", dateText(t.IssuedAt)}, {"exp", dateText(t.ExpiresAt)},
	} {
		if p.value != "" {
			pairs = append(pairs, p.name, p.value)
		}
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

// dateText formats Unix seconds with their date. For 0 it returns "".
func dateText(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	raw := json.RawMessage(fmt.Sprint(seconds))
	return withDate(raw, string(raw))
}
