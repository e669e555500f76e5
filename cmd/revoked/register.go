package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/files"
	"revoked/cmd/revoked/internal/input"
)

// maxRegistration bounds the body of one registration, in bytes.
const maxRegistration = 64 << 10

// registerFlags are the flags of `token register`.
type registerFlags struct {
	body                            client.Registration // without the tokens
	accessFile, refreshFile         string
	accessLifetime, refreshLifetime time.Duration
	ndjson, results                 string
	flags                           *pflag.FlagSet
}

// grantFlags are the names of the flags that describe one grant.
var grantFlags = []string{
	"grant", "client", "subject", "session", "username", "issuer", "scope", "audience",
	"access-token-file", "refresh-token-file", "expires-in", "refresh-expires-in",
}

func tokenRegisterCommand() *cobra.Command {
	r := &registerFlags{}
	cmd := &cobra.Command{
		Use:   "register [FILE|-]",
		Short: "Register tokens that an authorization server issued",
		Long: "Register the tokens of a grant: from a JSON body in a file or on standard input, or from flags\n" +
			"and token files. With --ndjson, register many bodies, one per line.\n" +
			"Issue a token only after this command has exited with 0.",
		Example: "  revoked token register grant.json\n" +
			"  revoked token register --client app --subject alice --access-token-file at.txt --expires-in 1h\n" +
			"  zcat tokens.ndjson.gz | revoked token register --ndjson -",
		Args: cobra.MaximumNArgs(1),
	}
	conn := call.AddFlags(cmd)
	f := cmd.Flags()
	r.flags = f
	f.StringVar(&r.body.GrantID, "grant", "", "grant id (default: the server generates one)")
	f.StringVar(&r.body.ClientID, "client", "", "client id that the tokens were issued to")
	f.StringVar(&r.body.Subject, "subject", "", "subject that authorized the grant")
	f.StringVar(&r.body.Session, "session", "", "login session at the authorization server")
	f.StringVar(&r.body.Username, "username", "", "human-readable name of the subject")
	f.StringVar(&r.body.Issuer, "issuer", "", "issuer of the tokens")
	f.StringVar(&r.body.Scope, "scope", "", "scope, separated by spaces")
	f.StringArrayVar(&r.body.Audience, "audience", nil, "audience of the tokens (repeatable)")
	f.StringVar(&r.accessFile, "access-token-file", "", "file of the access token; - is standard input")
	f.StringVar(&r.refreshFile, "refresh-token-file", "", "file of the refresh token; - is standard input")
	f.DurationVar(&r.accessLifetime, "expires-in", 0, "lifetime of the access token from now (default: never expires)")
	f.DurationVar(&r.refreshLifetime, "refresh-expires-in", 0,
		"lifetime of the refresh token from now (default: never expires)")
	f.StringVar(&r.ndjson, "ndjson", "", "file of many bodies, one per line; - is standard input")
	f.StringVar(&r.results, "results", "errors", `with --ndjson -o json: "all" results or only "errors" and a summary`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.ndjson == "" {
			return r.registerOne(cmd, conn, args)
		}
		if len(args) > 0 || r.describesGrant() {
			return cli.UsageError("cannot combine --ndjson with a file argument or flags that describe one grant")
		}
		return r.registerStream(cmd, conn)
	}
	return cmd
}

func (r *registerFlags) describesGrant() bool {
	return slices.ContainsFunc(grantFlags, r.flags.Changed)
}

func (r *registerFlags) registerOne(cmd *cobra.Command, conn *call.Flags, args []string) error {
	body, err := r.grantBody(cmd, args)
	if err != nil {
		return err
	}
	return call.Run(cmd, conn, args,
		func(c *client.Client, ctx context.Context, _ []string) (client.Answer[client.Registered], error) {
			return c.Register(ctx, body)
		},
		func(cmd *cobra.Command, v client.Registered) error {
			return cli.PrintTable(cmd.OutOrStdout(), []string{"GRANT", "INDEX", "STATE"},
				[][]string{{v.GrantID, strconv.FormatUint(v.Index, 10), v.State}})
		})
}

// grantBody reads the body from the file argument. Without one it builds the body from the flags.
func (r *registerFlags) grantBody(cmd *cobra.Command, args []string) (any, error) {
	if len(args) == 1 {
		if r.describesGrant() {
			return nil, cli.UsageError("cannot combine a FILE argument with flags that describe the grant")
		}
		return readBody(cmd, args[0])
	}
	access, refresh := r.flags.Changed("expires-in"), r.flags.Changed("refresh-expires-in")
	switch {
	case r.body.ClientID == "":
		return nil, cli.UsageError("pass a file with the JSON body (- is standard input), or --client and token files")
	case r.accessFile == "" && r.refreshFile == "":
		return nil, cli.UsageError("set --access-token-file, --refresh-token-file or both")
	case r.accessFile == "-" && r.refreshFile == "-":
		return nil, cli.UsageError("only one token can come from standard input")
	case access && r.accessFile == "" || refresh && r.refreshFile == "":
		return nil, cli.UsageError(
			"--expires-in needs --access-token-file, and --refresh-expires-in needs --refresh-token-file")
	case access && r.accessLifetime <= 0:
		return nil, cli.UsageError("--expires-in must be more than 0; without it the token never expires")
	case refresh && r.refreshLifetime <= 0:
		return nil, cli.UsageError("--refresh-expires-in must be more than 0; without it the token never expires")
	}
	body, now := r.body, time.Now()
	var err error
	if body.Access, err = readTokenBody(cmd, r.accessFile, r.accessLifetime, now); err != nil {
		return nil, err
	}
	body.Refresh, err = readTokenBody(cmd, r.refreshFile, r.refreshLifetime, now)
	return body, err
}

// readTokenBody reads the token in file; it returns nil for an empty name. With a lifetime of 0 the
// token never expires.
func readTokenBody(cmd *cobra.Command, file string, lifetime time.Duration, now time.Time) (*client.TokenBody, error) {
	if file == "" {
		return nil, nil
	}
	text, err := input.Token(cmd, file)
	if err != nil {
		return nil, err
	}
	t := &client.TokenBody{Token: text, IssuedAt: now.Unix()}
	if lifetime > 0 {
		t.ExpiresAt = now.Add(lifetime).Unix()
	}
	return t, nil
}

// readBody reads a JSON body from a file or standard input. Its errors contain neither the name nor
// the text: both may be a token.
func readBody(cmd *cobra.Command, name string) (json.RawMessage, error) {
	b, err := input.Read(cmd, name, maxRegistration+1)
	if err != nil {
		return nil, fmt.Errorf("read the registration: %w (never pass a token itself on the command line)", err)
	}
	if len(b) > maxRegistration {
		return nil, fmt.Errorf("read the registration: %w (want at most %d bytes); use --ndjson for many",
			files.ErrTooLong, maxRegistration)
	}
	if b, err = files.Text(b); err != nil {
		return nil, fmt.Errorf("read the registration: %w", err)
	}
	if !json.Valid(b) {
		return nil, errors.New("the registration is not one JSON value; use --ndjson for many, one per line")
	}
	return b, nil
}

// registerStream sends a file of bodies and prints the results as they arrive.
func (r *registerFlags) registerStream(cmd *cobra.Command, conn *call.Flags) error {
	if r.results != "all" && r.results != "errors" {
		return cli.UsageError(`--results must be "all" or "errors"`)
	}
	c, asJSON, err := conn.Open()
	if err != nil {
		return err
	}
	in, err := input.Open(cmd, r.ndjson)
	if err != nil {
		return fmt.Errorf("read the registrations: %w", input.WithoutPath(err))
	}
	defer in.Close()

	sum, complete := client.RegisterSummary{}, false
	err = c.RegisterStream(cmd.Context(), in, r.results == "errors" || !asJSON,
		func(l client.RegisterLine, line []byte) error {
			switch {
			case l.Lines != nil:
				sum, complete = l.RegisterSummary, true
			case l.Error != "":
				sum.Failed++
			default:
				sum.Registered++
			}
			if asJSON {
				return cli.PrintBody(cmd.OutOrStdout(), line)
			}
			if l.Error != "" {
				text := l.Error
				if l.Detail != "" {
					text += ": " + l.Detail
				}
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "line %d: %s\n", l.Line, cli.Clean(text))
				return err
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("%w; it is safe to send the whole file again", conn.Advise(err))
	}
	if !asJSON {
		if !complete {
			return errors.New("the response ended before its summary: some lines may not be registered; " +
				"it is safe to send the whole file again")
		}
		if err := printSummary(cmd, sum); err != nil {
			return err
		}
	}
	if sum.Failed > 0 {
		return fmt.Errorf("failed registrations: %d; it is safe to send the whole file again", sum.Failed)
	}
	return nil
}

func printSummary(cmd *cobra.Command, s client.RegisterSummary) error {
	row := []string{fmt.Sprint(s.Registered), fmt.Sprint(s.Known), fmt.Sprint(s.Revoked), fmt.Sprint(s.Failed)}
	return cli.PrintTable(cmd.OutOrStdout(), []string{"REGISTERED", "KNOWN", "REVOKED", "FAILED"}, [][]string{row})
}
