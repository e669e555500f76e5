package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

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
			_ = os.Remove(file) // the file is still empty
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
