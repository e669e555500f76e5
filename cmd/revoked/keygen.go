package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"revoked/api"
	"revoked/cluster"
)

func keygenCommand() *cobra.Command {
	var file string
	var force, hash bool
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a gossip key, or hash a client secret",
		Long: "Make a gossip key, for gossip_key_file of every node.\n\n" +
			"With --hash: read a client secret from standard input and print its hash, for\n" +
			"client_secret_hash in bootstrap_clients_file.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := keygenText(cmd, hash)
			if err != nil {
				return err
			}
			if file == "" {
				_, err := fmt.Fprint(cmd.OutOrStdout(), text)
				return err
			}
			return writeFiles(force, newFile{file, []byte(text), privateMode})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "write to this file, mode 0600 (default: standard output)")
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it is there")
	cmd.Flags().BoolVar(&hash, "hash", false, "hash the client secret on standard input")
	return cmd
}

func keygenText(cmd *cobra.Command, hash bool) (string, error) {
	if !hash {
		key, err := cluster.NewKey()
		if err != nil {
			return "", err
		}
		return cluster.FormatKey(key), nil
	}
	secret, err := readSecretLine(cmd)
	if err != nil {
		return "", err
	}
	return formatSecretHash(api.HashSecret(secret)) + "\n", nil
}

// readSecretLine reads a secret from standard input.
func readSecretLine(cmd *cobra.Command) (string, error) {
	buf := make([]byte, 0, 1026)
	for len(buf) < cap(buf) {
		n, err := cmd.InOrStdin().Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			break
		}
	}
	secret := strings.TrimRight(string(buf), "\r\n")
	if secret == "" || len(secret) > 1024 || strings.ContainsAny(secret, "\r\n") {
		return "", errors.New("want one secret of at most 1024 bytes in one line on standard input")
	}
	return secret, nil
}
