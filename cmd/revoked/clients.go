package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/api/clientauth"
	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Manage OAuth clients, issuers, resource servers, administrators and operators",
	}
	cmd.AddCommand(
		clientCreateCommand(),
		clientListCommand(),
		call.Command(&cobra.Command{Use: "show ID", Short: "Show a client", Args: cobra.ExactArgs(1)},
			call.WithArg((*client.Client).Client), printClient),
		secretCommand(&cobra.Command{
			Use:   "rotate-secret ID",
			Short: "Give a client a new secret; the old one stays valid for secret_grace",
			Args:  cobra.ExactArgs(1),
		}, call.WithArg((*client.Client).RotateSecret),
			"client ARG has a new secret (the old one stays valid for secret_grace)"),
		setDisabledCommand("disable ID", "Suspend a client: its tokens are inactive until you enable it again", true),
		setDisabledCommand("enable ID", "Enable a client that was disabled", false),
		call.Change(&cobra.Command{
			Use: "delete ID", Short: "Delete a client; all of its tokens end", Args: cobra.ExactArgs(1),
		}, call.WithArg((*client.Client).DeleteClient), "deleted ARG; all of its tokens have ended"),
	)
	return cmd
}

func setDisabledCommand(use, short string, disabled bool) *cobra.Command {
	return call.Command(&cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1)},
		func(c *client.Client, ctx context.Context, args []string) (client.Answer[client.ClientRecord], error) {
			return c.SetDisabled(ctx, args[0], disabled)
		}, printClient)
}

func printClient(cmd *cobra.Command, r client.ClientRecord) error {
	if r.WeakSecret {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s has an imported secret of less than 32 bytes, which can be guessed: "+
			"replace it with revoked client rotate-secret\n", r.ClientID)
	}
	pairs := []any{
		"client_id", r.ClientID, "type", r.Type, "state", clientState(r), "roles", r.Roles, "audiences", audiences(r),
		"issuers", r.Issuers, "auth_methods", r.AuthMethods, "allow_public_revocation", r.AllowPublicRevocation,
		"created_at", withDate(r.CreatedAt, rawText(r.CreatedAt)),
	}
	if len(r.Secrets) > 0 { // public clients have none, and older nodes do not list them
		pairs = append(pairs, "secrets", secretsText(r.Secrets))
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

// secretsText returns how many secrets of a client are valid, and until when the old ones are.
func secretsText(secrets []client.ClientSecret) string {
	var until []string
	for _, s := range secrets {
		if s.ExpiresAt != nil {
			until = append(until, cli.Date(*s.ExpiresAt))
		}
	}
	text := fmt.Sprintf("%d valid", len(secrets))
	if len(until) > 0 {
		text += "; an old one ends at " + strings.Join(until, ", ")
	}
	return text
}

// audiences returns the audiences of a client. A resource server without any has its own id.
func audiences(r client.ClientRecord) []string {
	if len(r.Audiences) == 0 && slices.Contains(r.Roles, string(revoked.RoleResourceServer)) {
		return []string{r.ClientID}
	}
	return r.Audiences
}

func clientState(r client.ClientRecord) string {
	return map[bool]string{false: "enabled", true: "disabled"}[r.Disabled]
}

func clientListCommand() *cobra.Command {
	return call.Command(&cobra.Command{Use: "list", Short: "List the clients", Args: cobra.NoArgs},
		call.WithoutArgs((*client.Client).Clients),
		func(cmd *cobra.Command, l client.Clients) error {
			var rows [][]string
			for _, r := range l.Clients {
				rows = append(rows, []string{
					r.ClientID, r.Type, strings.Join(r.Roles, " "), strings.Join(audiences(r), " "), clientState(r),
				})
			}
			return cli.PrintTable(cmd.OutOrStdout(), []string{"CLIENT", "TYPE", "ROLES", "AUDIENCES", "STATE"}, rows)
		})
}

func clientCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Create a client; its secret is shown only this once",
		Long: "Create a client. The server generates its secret and keeps only a hash. The secret is shown only\n" +
			"this once or, with --secret-out, written to a new file that only you can read.\n\n" +
			"Roles: admin may do everything. issuer registers tokens. resource_server introspects them. operator\n" +
			"changes members and settings and makes backups. viewer reads members, status, settings and\n" +
			"explanations. auditor reads the whole feed.",
		Example: "  revoked client create app\n" +
			"  revoked client create api-gateway --role resource_server --audience orders --audience billing\n" +
			"  revoked client create backup --role operator --secret-out backup.secret\n" +
			"  revoked client create spa --type public --allow-public-revocation",
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	n := client.NewClient{}
	f.StringVar(&n.Type, "type", "confidential", "confidential or public")
	f.StringArrayVar(&n.Roles, "role", nil,
		"admin, issuer, resource_server, operator, viewer or auditor (repeatable; none: a plain OAuth client)")
	f.StringArrayVar(&n.Audiences, "audience", nil, "audience of a resource server (repeatable; default: its client id)")
	f.StringArrayVar(&n.Issuers, "issuer", nil, "issuer that an issuer may register for (repeatable; default: any)")
	f.StringArrayVar(&n.AuthMethods, "auth-method", nil,
		"client_secret_basic or client_secret_post (repeatable; default: both)")
	f.BoolVar(&n.AllowPublicRevocation, "allow-public-revocation", false, "let this public client revoke its own tokens")
	secretFile := f.String("secret-file", "", "file of a secret to set instead of a generated one")
	f.BoolVar(&n.Imported, "imported", false, "with --secret-file: accept a secret shorter than 32 bytes")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		n.ClientID = args[0]
		if n.Imported && *secretFile == "" {
			return cli.UsageError("--imported needs --secret-file")
		}
		if *secretFile != "" {
			var err error
			if n.ClientSecret, err = call.ReadSecret(*secretFile); err != nil {
				return err
			}
			if err := clientauth.CheckSecret(n.ClientSecret, n.Imported); err != nil {
				return cli.UsageError("%s: %s (flag --imported)", *secretFile, revoked.Detail(err))
			}
		}
		return checkNewClient(n)
	}
	return secretCommand(cmd,
		func(c *client.Client, ctx context.Context, _ []string) (client.Answer[client.ClientRecord], error) {
			return c.CreateClient(ctx, n)
		}, "client ARG was created")
}

// checkNewClient refuses a client that the API would refuse. The API's messages name the byte of
// the JSON body, which the user of the tool never sees.
func checkNewClient(n client.NewClient) error {
	c := revoked.Client{
		ID: n.ClientID, Type: revoked.ClientType(n.Type), Audiences: n.Audiences, Issuers: n.Issuers,
		AuthMethods: n.AuthMethods, AllowPublicRevocation: n.AllowPublicRevocation,
	}
	for _, r := range n.Roles {
		c.Roles = append(c.Roles, revoked.Role(r))
	}
	if len(c.AuthMethods) == 0 && c.Type == revoked.Confidential {
		c.AuthMethods = []string{revoked.AuthBasic, revoked.AuthPost} // as the server does
	}
	if err := revoked.ValidateClient(&c); err != nil {
		return cli.UsageError("%s", revoked.Detail(err))
	}
	return nil
}

// secretCommand completes cmd, which makes one call whose answer contains a secret. It prints the
// answer, or with --secret-out writes the secret to that new file and prints the rest. done
// describes the change after a successful call, with the first argument in place of ARG.
func secretCommand(cmd *cobra.Command, do call.Func[client.ClientRecord], done string) *cobra.Command {
	conn := call.AddFlags(cmd)
	file := cmd.Flags().String("secret-out", "", "write the secret to this new file (mode 0600) instead of printing it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		done = strings.Replace(done, "ARG", args[0], 1)
		return callForSecret(cmd, conn, args, *file, do, done)
	}
	return cmd
}

func callForSecret(
	cmd *cobra.Command, conn *call.Flags, args []string, file string, do call.Func[client.ClientRecord], done string,
) error {
	c, asJSON, err := conn.Open()
	if err != nil {
		return err
	}
	// Create the file first: a secret that cannot be stored must not replace the one in use.
	var f *os.File
	if file != "" {
		f, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write the secret: %w", err)
		}
		defer f.Close()
	}
	a, err := do(c, cmd.Context(), args)
	if err != nil {
		if f != nil {
			_ = os.Remove(file) // still empty
		}
		return conn.Advise(err)
	}
	if f != nil {
		if err := writeSecret(f, a.Value.ClientSecret); err != nil {
			return secretLost(done, a.Value.ClientID, err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "the secret is in %s\n", file)
		a.Value.ClientSecret = ""
		if a.Body, err = without(a.Body, "client_secret"); err != nil {
			return err
		}
	}
	pairs := []any{"client_id", a.Value.ClientID}
	if a.Value.ClientSecret != "" {
		pairs = append(pairs, "client_secret", a.Value.ClientSecret)
	}
	if asJSON {
		err = cli.PrintBody(cmd.OutOrStdout(), a.Body)
	} else {
		err = cli.PrintPairs(cmd.OutOrStdout(), pairs...)
	}
	switch {
	case err != nil && a.Value.ClientSecret != "":
		return secretLost(done, a.Value.ClientID, err)
	case err == nil && a.Value.ClientSecret != "" && !asJSON:
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "keep the secret: it is not shown again")
	}
	return err
}

// secretLost returns an error that names the change and how to get another secret.
func secretLost(done, id string, err error) error {
	return fmt.Errorf("%s, but its secret could not be written: %w; `revoked client rotate-secret %s` generates a new one",
		done, err, cli.ShellQuote(cli.Clean(id)))
}

// writeSecret writes secret to f durably. On an error it removes the file.
func writeSecret(f *os.File, secret string) error {
	_, err := f.WriteString(secret + "\n")
	if err = cmp.Or(err, f.Sync()); err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// without returns the JSON object body without one member.
func without(body []byte, member string) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	delete(fields, member)
	return json.Marshal(fields)
}
