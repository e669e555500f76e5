package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/api/clientauth"
	"revoked/cluster"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/files"
)

// keygenFlags are the flags of `keygen`.
type keygenFlags struct {
	file                string
	force, secret, hash bool
}

func keygenCommand() *cobra.Command {
	k := keygenFlags{}
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a gossip key or a client secret, or hash a client secret",
		Long: "Make a gossip key, for gossip_key_file of every node.\n\n" +
			"With --secret: make a client secret, for instance for bootstrap_admin_secret_file.\n\n" +
			"With --hash: read a client secret from standard input and print its hash, for\n" +
			"client_secret_hash in bootstrap_clients_file.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return k.run(cmd) },
	}
	cmd.Flags().StringVarP(&k.file, "file", "f", "", "write to this file, mode 0600 (default: standard output)")
	cmd.Flags().BoolVar(&k.force, "force", false, "replace the file if it exists")
	cmd.Flags().BoolVar(&k.secret, "secret", false, "make a client secret of 256 random bits")
	cmd.Flags().BoolVar(&k.hash, "hash", false, "hash the client secret on standard input")
	return cmd
}

func (k *keygenFlags) run(cmd *cobra.Command) error {
	if k.secret && k.hash {
		return cli.UsageError("set --secret or --hash, not both")
	}
	text, name, err := k.text(cmd)
	if err != nil {
		return err
	}
	if k.file == "" {
		_, err := fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	if err := files.Write(k.force, files.Private(k.file, []byte(text))); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s to %s\n", name, k.file)
	return err
}

// text returns the content of the file, and a name for it.
func (k *keygenFlags) text(cmd *cobra.Command) (text, name string, err error) {
	switch {
	case k.secret:
		return clientauth.NewSecret() + "\n", "a client secret", nil
	case k.hash:
		secret, err := readSecretLine(cmd)
		if err != nil {
			return "", "", err
		}
		return config.FormatSecretHash(clientauth.HashSecret(secret)) + "\n", "the hash of a client secret", nil
	}
	key, err := cluster.NewKey()
	if err != nil {
		return "", "", err
	}
	return cluster.FormatKey(key), "a gossip key, the same for every node,", nil
}

// readSecretLine reads the secret on standard input. It accepts a short secret with a warning: the
// record of a client with such a secret needs imported: true.
func readSecretLine(cmd *cobra.Command) (string, error) {
	buf, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), call.MaxSecretFile))
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	secret, err := files.OneLine(buf)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	if err := clientauth.CheckSecret(secret, true); err != nil {
		return "", errors.New(revoked.Detail(err))
	}
	if len(secret) < clientauth.StrongSecret {
		fmt.Fprintf(cmd.ErrOrStderr(), "the secret has less than %d bytes: its record needs imported: true\n",
			clientauth.StrongSecret)
	}
	return secret, nil
}
