package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Register, revoke and introspect tokens",
		Long: "Register, revoke and introspect tokens. A token is read from a file or from standard input\n" +
			"(-), never from the command line, where every user of the machine could read it.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return needCommand(cmd, args)
			}
			return usageError("unknown command below token") // not repeated: it may be a token
		},
	}
	cmd.AddCommand(tokenRegisterCommand(), tokenRevokeCommand(), tokenIntrospectCommand())
	return cmd
}

// formCall returns a form-encoded POST.
func formCall(what, path string, form url.Values) call {
	return call{
		what: what, method: http.MethodPost, path: path,
		contentType: "application/x-www-form-urlencoded", body: []byte(form.Encode()),
	}
}

// tokenForm reads the token and returns the form that carries it.
func tokenForm(cmd *cobra.Command, file, hint string) (url.Values, error) {
	token, err := readToken(cmd, file)
	if err != nil {
		return nil, err
	}
	form := url.Values{"token": {token}}
	if hint != "" {
		form.Set("token_type_hint", hint)
	}
	return form, nil
}

func tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke FILE|-",
		Short: "Revoke a token, and with it all tokens of its grant",
		Long: "Revoke a token, and with it all tokens of its grant. Ends with 0 once the revocation is final\n" +
			"on every node, and also where the token was dead or unknown.",
		Args: cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	hint := cmd.Flags().String("hint", "", "token_type_hint: access_token or refresh_token; never needed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		form, err := tokenForm(cmd, args[0], *hint)
		if err != nil {
			return err
		}
		body, err := a.do(cmd.Context(), formCall("revoke the token", "/oauth2/revoke", form))
		if err != nil {
			return err
		}
		if a.asJSON {
			return printBody(cmd.OutOrStdout(), body)
		}
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "revoked: no node calls a token of this grant active any more")
		return err
	}
	return cmd
}

func tokenIntrospectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "introspect FILE|-",
		Short: "Ask whether a token is active",
		Long:  "Ask whether a token is active. Ends with 0 where it is, 2 where it is not, 1 where nobody could say.",
		Args:  cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	hint := cmd.Flags().String("hint", "", "token_type_hint: access_token or refresh_token; never needed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		form, err := tokenForm(cmd, args[0], *hint)
		if err != nil {
			return err
		}
		c := formCall("introspect the token", "/oauth2/introspect", form)
		body, err := a.do(cmd.Context(), c)
		if err != nil {
			return err
		}
		fields := map[string]json.RawMessage{}
		if err := parseAnswer(c.what, body, &fields); err != nil {
			return err
		}
		active := string(fields["active"]) == "true"
		if a.asJSON {
			err = printBody(cmd.OutOrStdout(), body)
		} else {
			err = printIntrospection(cmd.OutOrStdout(), fields)
		}
		if err != nil {
			return err
		}
		if !active {
			return negative()
		}
		return nil
	}
	return cmd
}

// printIntrospection writes active first, then the rest by name.
func printIntrospection(w io.Writer, fields map[string]json.RawMessage) error {
	names := make([]string, 0, len(fields))
	for name := range fields {
		if name != "active" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	pairs := [][2]string{{"active", rawText(fields["active"])}}
	for _, name := range names {
		text := rawText(fields[name])
		if name == "exp" || name == "iat" || name == "nbf" {
			text = withDate(fields[name], text)
		}
		pairs = append(pairs, [2]string{printable(name), text})
	}
	return printPairs(w, pairs)
}

// rawText words a JSON value: strings without quotes, lists of strings separated by spaces.
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

// withDate adds the date to a number of Unix seconds.
func withDate(raw json.RawMessage, text string) string {
	var sec float64
	if json.Unmarshal(raw, &sec) != nil || sec < 0 || sec > 1<<40 {
		return text
	}
	return text + " (" + time.Unix(int64(sec), 0).UTC().Format(time.RFC3339) + ")"
}
