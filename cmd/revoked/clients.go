package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/api/clientauth"
	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/files"
	"revoked/node/jwt"
)

func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Manage OAuth clients, issuers, resource servers, administrators and operators",
	}
	cmd.AddCommand(
		clientCreateCommand(),
		clientUpdateCommand(),
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
			Use: "delete ID", Short: "Delete a client and revoke all of its tokens", Args: cobra.ExactArgs(1),
		}, call.WithArg((*client.Client).DeleteClient), "deleted ARG; all of its tokens are revoked"),
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
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s has an imported secret of fewer than 32 bytes, which can be guessed: "+
			"replace it with revoked client rotate-secret\n", r.ClientID)
	}
	pairs := []any{
		"client_id", r.ClientID, "type", r.Type, "state", clientState(r), "roles", r.Roles, "audiences", audiences(r),
		"issuers", r.Issuers, "auth_methods", r.AuthMethods, "allow_public_revocation", r.AllowPublicRevocation,
		"created_at", withDate(r.CreatedAt, rawText(r.CreatedAt)),
	}
	for _, s := range subjectFlags(&r.CertificateSubject) {
		if *s.value != "" {
			pairs = append(pairs, s.member, *s.value)
		}
	}
	if len(r.Keys) > 0 {
		pairs = append(pairs, "keys", keysText(r.Keys))
	}
	if len(r.Secrets) > 0 { // public clients have none, and older nodes do not list them
		pairs = append(pairs, "secrets", secretsText(r.Secrets))
	}
	return cli.PrintPairs(cmd.OutOrStdout(), pairs...)
}

// keysText returns the key ids of a client, and the thumbprints of keys without one.
func keysText(keys []client.ClientKey) []string {
	var list []string
	for _, k := range keys {
		list = append(list, cmp.Or(k.KeyID, k.Thumbprint))
	}
	return list
}

// secretsText returns the number of valid secrets of a client, and when the old ones expire.
func secretsText(secrets []client.ClientSecret) string {
	var until []string
	for _, s := range secrets {
		if s.ExpiresAt != nil {
			until = append(until, cli.Date(*s.ExpiresAt))
		}
	}
	text := fmt.Sprintf("%d valid", len(secrets))
	if len(until) > 0 {
		text += "; an old one expires at " + strings.Join(until, ", ")
	}
	return text
}

// audiences returns the audiences of a client. A resource server without audiences has its client
// id as the audience.
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
		Short: "Create a client; its secret is shown only once",
		Long: "Create a client. The server generates its secret and keeps only a hash. The secret is shown only\n" +
			"this once or, with --secret-out, written to a new file that only you can read.\n\n" +
			"Roles: admin may do everything. issuer registers tokens. resource_server introspects them. operator\n" +
			"changes members and settings and makes backups. viewer reads members, status, settings and\n" +
			"explanations. auditor reads the audit log and the whole feed.",
		Example: "  revoked client create app\n" +
			"  revoked client create api-gateway --role resource_server --audience orders --audience billing\n" +
			"  revoked client create backup --role operator --secret-out backup.secret\n" +
			"  revoked client create robot --auth-method private_key_jwt --jwks robot.jwks\n" +
			"  revoked client create web --auth-method tls_client_auth --tls-client-auth-san-dns web.example.org\n" +
			"  revoked client create spa --type public --allow-public-revocation",
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	n := client.NewClient{}
	f.StringVar(&n.Type, "type", "confidential", "confidential or public")
	jwks := addClientFlags(cmd, &n)
	f.BoolVar(&n.AllowPublicRevocation, "allow-public-revocation", false,
		"allow this public client to revoke its own tokens")
	secretFile := f.String("secret-file", "", "file with the secret to set (default: the server generates one)")
	f.BoolVar(&n.Imported, "imported", false, "with --secret-file: accept a secret shorter than 32 bytes")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		n.ClientID = args[0]
		if err := readJWKS(*jwks, &n); err != nil {
			return err
		}
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

// checkNewClient refuses a client that the API would refuse. The API's messages have a byte offset
// in the JSON body, which the user of the tool never sees.
func checkNewClient(n client.NewClient) error {
	c := revoked.Client{
		ID: n.ClientID, Type: revoked.ClientType(n.Type), Audiences: n.Audiences, Issuers: n.Issuers,
		AuthMethods: n.AuthMethods, AllowPublicRevocation: n.AllowPublicRevocation,
	}
	for i, s := range subjectFlags(&n.CertificateSubject) {
		switch {
		case *s.value == "":
		case c.Subject.Kind != 0:
			return cli.UsageError("set --%s or --%s, not both",
				subjectFlag(c.Subject.Kind), subjectFlag(revoked.SubjectKinds()[i]))
		default:
			c.Subject = revoked.CertificateSubject{Kind: revoked.SubjectKinds()[i], Value: *s.value}
		}
	}
	if n.JWKS != nil {
		var err error
		if c.Keys, err = jwt.ParseInline(n.JWKS); err != nil {
			return cli.UsageError("%s", revoked.Detail(err))
		}
	}
	for _, r := range n.Roles {
		c.Roles = append(c.Roles, revoked.Role(r))
	}
	if len(c.AuthMethods) == 0 && c.Type == revoked.Confidential {
		c.AuthMethods = []string{revoked.AuthBasic, revoked.AuthPost} // the default of the server
	}
	if err := revoked.ValidateClient(&c); err != nil {
		return cli.UsageError("%s", revoked.Detail(err))
	}
	return nil
}

// maxJWKSFile bounds a file with the public keys of a client, in bytes.
const maxJWKSFile = 64 << 10

// addClientFlags adds the flags that `client create` and `client update` share. It returns the name
// of the file with the client's keys.
func addClientFlags(cmd *cobra.Command, n *client.NewClient) (jwks *string) {
	f := cmd.Flags()
	f.StringArrayVar(&n.Roles, "role", nil,
		"admin, issuer, resource_server, operator, viewer or auditor (repeatable; default: none, a plain OAuth client)")
	f.StringArrayVar(&n.Audiences, "audience", nil, "audience of a resource server (repeatable; default: its client id)")
	f.StringArrayVar(&n.Issuers, "issuer", nil, "issuer that an issuer may register for (repeatable; default: any)")
	f.StringArrayVar(&n.AuthMethods, "auth-method", nil,
		"client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth or self_signed_tls_client_auth "+
			"(repeatable; default: the first two)")
	what := []string{"distinguished name (RFC 4514)", "host name", "URI", "IP address", "email address"}
	for i, s := range subjectFlags(&n.CertificateSubject) {
		f.StringVar(s.value, subjectFlag(revoked.SubjectKinds()[i]), "", what[i]+" in the certificate, for tls_client_auth")
	}
	return f.String("jwks", "", "file of a JWK set with public keys, for private_key_jwt and self_signed_tls_client_auth")
}

// A subjectValue is one field of a certificate subject, with its name in the API.
type subjectValue struct {
	member string
	value  *string
}

// subjectFlags returns the fields of s in the order of [revoked.SubjectKinds].
func subjectFlags(s *client.CertificateSubject) []subjectValue {
	var list []subjectValue
	for i, v := range []*string{&s.SubjectDN, &s.SubjectDNS, &s.SubjectURI, &s.SubjectIP, &s.SubjectEmail} {
		list = append(list, subjectValue{revoked.SubjectKinds()[i].Name(), v})
	}
	return list
}

// subjectFlag returns the name of the flag that sets a certificate name of kind k.
func subjectFlag(k revoked.SubjectKind) string { return strings.ReplaceAll(k.Name(), "_", "-") }

func readJWKS(file string, n *client.NewClient) error {
	if file == "" {
		return nil
	}
	b, err := files.Read(file, maxJWKSFile)
	if err != nil {
		return fmt.Errorf("read the keys: %w", err)
	}
	if _, err := jwt.ParseInline(b); err != nil {
		return cli.UsageError("%s: %s", file, revoked.Detail(err))
	}
	n.JWKS = b
	return nil
}

// clientUpdateCommand changes the fields whose flags are set. A new certificate name replaces the
// current one, even one of another kind.
func clientUpdateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change a client: its roles, audiences, methods, keys or certificate",
		Long: "Change the fields of a client whose flags are set. A flag replaces the whole list. An empty value, such\n" +
			"as --role '', removes the list. A new certificate name replaces the current one.",
		Example: "  revoked client update robot --jwks robot.new.jwks\n" +
			"  revoked client update web --auth-method tls_client_auth --tls-client-auth-subject-dn 'CN=web,O=Example'",
		Args: cobra.ExactArgs(1),
	}
	n := client.NewClient{}
	jwks := addClientFlags(cmd, &n)
	patch := map[string]any{}
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := readJWKS(*jwks, &n); err != nil {
			return err
		}
		for flag, list := range map[string][]string{
			"role": n.Roles, "audience": n.Audiences, "issuer": n.Issuers, "auth-method": n.AuthMethods,
		} {
			if cmd.Flags().Changed(flag) {
				member := map[string]string{"auth-method": "auth_methods"}[flag]
				patch[cmp.Or(member, flag+"s")] = slices.DeleteFunc(list, func(s string) bool { return s == "" })
			}
		}
		if cmd.Flags().Changed("jwks") {
			patch["jwks"] = n.JWKS // nil, sent as null, if the name of the file is empty
		}
		patchSubject(cmd, &n.CertificateSubject, patch)
		if len(patch) == 0 {
			return cli.UsageError("nothing to change: set at least one flag")
		}
		return nil
	}
	return call.Command(cmd,
		func(c *client.Client, ctx context.Context, args []string) (client.Answer[client.ClientRecord], error) {
			return c.UpdateClient(ctx, args[0], patch)
		}, printClient)
}

// patchSubject adds the certificate name that the flags set to patch. It sets the other kinds of
// names to null.
func patchSubject(cmd *cobra.Command, s *client.CertificateSubject, patch map[string]any) {
	named := false
	for i := range subjectFlags(s) {
		named = named || cmd.Flags().Changed(subjectFlag(revoked.SubjectKinds()[i]))
	}
	for _, v := range subjectFlags(s) {
		switch {
		case !named:
		case *v.value == "":
			patch[v.member] = nil
		default:
			patch[v.member] = *v.value
		}
	}
}
