package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Manage OAuth clients, issuers, resource servers and administrators",
	}
	cmd.AddCommand(
		clientCreateCommand(),
		clientListCommand(),
		clientShowCommand(),
		clientRotateCommand(),
		clientDisabledCommand("disable", "Suspend a client: its tokens are inactive until it is enabled again", true),
		clientDisabledCommand("enable", "Enable a client that was disabled", false),
		clientDeleteCommand(),
	)
	return cmd
}

// A clientRecord is a client as the API shows it.
type clientRecord struct {
	ClientID              string   `json:"client_id"`
	Type                  string   `json:"type"`
	Roles                 []string `json:"roles"`
	Audiences             []string `json:"audiences"`
	Issuers               []string `json:"issuers"`
	AuthMethods           []string `json:"auth_methods"`
	AllowPublicRevocation bool     `json:"allow_public_revocation"`
	Disabled              bool     `json:"disabled"`
	CreatedAt             any      `json:"created_at"`
	ClientSecret          string   `json:"client_secret"` // in the answers to create and rotate-secret only
}

func (r clientRecord) state() string {
	if r.Disabled {
		return "disabled"
	}
	return "enabled"
}

func (r clientRecord) created() string {
	raw, err := json.Marshal(r.CreatedAt)
	if err != nil || r.CreatedAt == nil {
		return ""
	}
	return withDate(raw, rawText(raw))
}

func printClient(w io.Writer, r clientRecord) error {
	pairs := [][2]string{
		{"client_id", r.ClientID},
		{"type", r.Type},
		{"state", r.state()},
		{"roles", strings.Join(r.Roles, " ")},
		{"audiences", strings.Join(r.Audiences, " ")},
		{"issuers", strings.Join(r.Issuers, " ")},
		{"auth_methods", strings.Join(r.AuthMethods, " ")},
		{"allow_public_revocation", yesNo(r.AllowPublicRevocation)},
		{"created_at", r.created()},
	}
	return printPairs(w, pairs)
}

// clientPath returns the path of a client's record.
func clientPath(id, rest string) string { return "/v1/clients/" + url.PathEscape(id) + rest }

func clientCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Create a client; its secret is shown this once",
		Long: "Create a client. The server makes its secret and keeps only a hash: this is the one time that\n" +
			"it is shown (or, with --secret-out, written to a new file that only you can read).",
		Example: "  revoked client create app\n" +
			"  revoked client create api-gateway --role resource_server --audience orders --audience billing\n" +
			"  revoked client create spa --type public --allow-public-revocation",
		Args: cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	f := cmd.Flags()
	kind := f.String("type", "confidential", "confidential or public")
	roles := f.StringArray("role", nil, "admin, issuer or resource_server (repeatable; none: a plain OAuth client)")
	audiences := f.StringArray("audience", nil, "audience of a resource server (repeatable; default: its client id)")
	issuers := f.StringArray("issuer", nil, "issuer that an issuer may register for (repeatable; default: any)")
	methods := f.StringArray("auth-method", nil, "client_secret_basic or client_secret_post (repeatable; default: both)")
	public := f.Bool("allow-public-revocation", false, "let this public client revoke its own tokens")
	secretFile := f.String("secret-file", "", "file of a secret to set instead of one made by the server")
	imported := f.Bool("imported", false, "with --secret-file: take also a secret shorter than 32 bytes")
	out := addSecretOut(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := map[string]any{"client_id": args[0], "type": *kind}
		for name, list := range map[string][]string{"roles": *roles, "audiences": *audiences, "issuers": *issuers, "auth_methods": *methods} {
			if len(list) > 0 {
				body[name] = list
			}
		}
		if *public {
			body["allow_public_revocation"] = true
		}
		if *imported && *secretFile == "" {
			return usageError("--imported needs --secret-file")
		}
		if *secretFile != "" {
			secret, err := (&connection{secretFile: *secretFile}).secret()
			if err != nil {
				return err
			}
			body["client_secret"] = secret
			if *imported {
				body["imported"] = true
			}
		}
		c, err := jsonCall("create client "+printable(args[0]), http.MethodPost, "/v1/clients", body)
		if err != nil {
			return err
		}
		c.once = true
		return out.run(cmd, conn, c, "client "+printable(args[0])+" exists")
	}
	return cmd
}

func clientRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate-secret ID",
		Short: "Give a client a new secret; the old one lives on for secret_grace",
		Args:  cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	out := addSecretOut(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := jsonCall("rotate the secret of "+printable(args[0]), http.MethodPost, clientPath(args[0], "/secret"), struct{}{})
		if err != nil {
			return err
		}
		c.once = true // a second rotation would end the grace of the secret that is in use
		return out.run(cmd, conn, c, "client "+printable(args[0])+" has another secret (the one before lives on for secret_grace)")
	}
	return cmd
}

// A secretOut is where a secret goes that the server has just made.
type secretOut struct{ file string }

func addSecretOut(cmd *cobra.Command) *secretOut {
	s := &secretOut{}
	cmd.Flags().StringVar(&s.file, "secret-out", "", "write the secret to this new file (mode 0600) instead of printing it")
	return s
}

// run sends c, whose answer holds a secret, and prints the answer, or all of it but the secret. done says what is
// done once there is an answer.
func (s *secretOut) run(cmd *cobra.Command, conn *connection, c call, done string) error {
	a, err := conn.open()
	if err != nil {
		return err
	}
	// The file comes first: a secret that cannot be kept must not replace the one in use.
	var f *os.File
	if s.file != "" {
		f, err = os.OpenFile(s.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write the secret: %w", err)
		}
		defer f.Close()
	}
	body, err := a.do(cmd.Context(), c)
	if err != nil {
		if f != nil {
			os.Remove(s.file) // still empty
		}
		return err
	}
	var r clientRecord
	if err := parseAnswer(c.what, body, &r); err != nil {
		return err
	}
	if f != nil {
		if err := keepSecret(f, r.ClientSecret); err != nil {
			return secretLost(done, r.ClientID, err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "the secret is in %s\n", s.file)
		r.ClientSecret = ""
		if body, err = withoutSecret(body); err != nil {
			return err
		}
	}
	if a.asJSON {
		err = printBody(cmd.OutOrStdout(), body)
	} else {
		err = printSecret(cmd.OutOrStdout(), r)
	}
	switch {
	case err != nil && r.ClientSecret != "":
		return secretLost(done, r.ClientID, err)
	case err == nil && r.ClientSecret != "" && !a.asJSON:
		fmt.Fprintln(cmd.ErrOrStderr(), "keep the secret: it is not shown again")
	}
	return err
}

func printSecret(w io.Writer, r clientRecord) error {
	pairs := [][2]string{{"client_id", r.ClientID}}
	if r.ClientSecret != "" {
		pairs = append(pairs, [2]string{"client_secret", r.ClientSecret})
	}
	return printPairs(w, pairs)
}

// secretLost says that what was done is done, and that nobody has the secret.
func secretLost(done, id string, err error) error {
	return fmt.Errorf("%s, but its secret could not be written: %w; `revoked client rotate-secret %s` makes a new one",
		done, err, shellQuote(printable(id)))
}

// keepSecret writes secret to f durably, or takes f away: half a secret is none.
func keepSecret(f *os.File, secret string) error {
	_, err := f.WriteString(secret + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// withoutSecret returns an answer without its secret.
func withoutSecret(body []byte) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	delete(fields, "client_secret")
	return json.Marshal(fields)
}

func clientListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the clients", Args: cobra.NoArgs}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		c := call{what: "list the clients", method: http.MethodGet, path: "/v1/clients"}
		body, err := a.do(cmd.Context(), c)
		if err != nil {
			return err
		}
		type list struct {
			Clients []clientRecord `json:"clients"`
		}
		return answer(cmd, a, c.what, body, func(w io.Writer, l list) error {
			rows := make([][]string, 0, len(l.Clients))
			for _, r := range l.Clients {
				rows = append(rows, []string{r.ClientID, r.Type, strings.Join(r.Roles, " "), strings.Join(r.Audiences, " "), r.state()})
			}
			return printTable(w, []string{"CLIENT", "TYPE", "ROLES", "AUDIENCES", "STATE"}, rows)
		})
	}
	return cmd
}

func clientShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show a client", Args: cobra.ExactArgs(1)}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return runClientCall(cmd, conn, call{what: "show client " + printable(args[0]), method: http.MethodGet, path: clientPath(args[0], "")})
	}
	return cmd
}

func clientDisabledCommand(name, short string, disabled bool) *cobra.Command {
	cmd := &cobra.Command{Use: name + " ID", Short: short, Args: cobra.ExactArgs(1)}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := jsonCall(name+" client "+printable(args[0]), http.MethodPatch, clientPath(args[0], ""), map[string]bool{"disabled": disabled})
		if err != nil {
			return err
		}
		c.contentType = "application/merge-patch+json"
		return runClientCall(cmd, conn, c)
	}
	return cmd
}

// runClientCall sends c, whose answer is a client's record, and prints it.
func runClientCall(cmd *cobra.Command, conn *connection, c call) error {
	a, err := conn.open()
	if err != nil {
		return err
	}
	body, err := a.do(cmd.Context(), c)
	if err != nil {
		return err
	}
	return answer(cmd, a, c.what, body, printClient)
}

func clientDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a client; all of its tokens end",
		Args:  cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := call{what: "delete client " + printable(args[0]), method: http.MethodDelete, path: clientPath(args[0], "")}
		return runIndexed(cmd, conn, c, "deleted "+printable(args[0])+"; all of its tokens have ended")
	}
	return cmd
}
