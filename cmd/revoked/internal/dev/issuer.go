package dev

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
)

// devReadyTime limits the wait for all nodes to become ready, and then the wait for the issuer to
// be trusted.
const devReadyTime = 90 * time.Second

const (
	demoLifetime    = time.Hour
	maxDemoLifetime = 24 * time.Hour // max_lifetime of the demo issuer
	trustInterval   = 100 * time.Millisecond
)

func devTokenCommand() *cobra.Command {
	claims := devfolder.Claims{Issuer: devfolder.IssuerURL, Audience: "resource_server", Scope: "read write"}
	var dir string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Sign a JWT as the demo issuer of a development cluster",
		Long: "Sign an access token as the demo issuer of a development cluster, and print it. The token\n" +
			"is not registered: the nodes verify it with the issuer's public key.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return cli.UsageError("--dir is required: the directory of revoked dev")
			}
			if lifetime < time.Second || lifetime > maxDemoLifetime {
				return cli.UsageError("--lifetime must be 1s to %v, not %v", maxDemoLifetime, lifetime)
			}
			signer, err := devfolder.ReadSigner(dir)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w: start revoked dev with --dir %s first", err, cli.ShellQuote(dir))
			}
			if err != nil {
				return err
			}
			token, err := signer.Sign(demoClaims(claims, lifetime))
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory of revoked dev (required)")
	f.StringVar(&claims.ClientID, "client", "app", "client that the token is issued to")
	f.StringVar(&claims.Subject, "subject", "alice", "subject")
	f.StringVar(&claims.Session, "session", "", "session (the claim sid)")
	f.DurationVar(&lifetime, "lifetime", demoLifetime, "time from now to the expiry")
	return cmd
}

// demoClaims completes the claims of a token that is issued now.
func demoClaims(c devfolder.Claims, lifetime time.Duration) devfolder.Claims {
	now := time.Now()
	c.ID, c.IssuedAt, c.ExpiresAt = rand.Text(), now.Unix(), now.Add(lifetime).Unix()
	return c
}

// trustDemoIssuer creates the record of the demo issuer unless it exists. It returns an error if
// the cluster would not accept the tokens of the issuer, because its record was changed or deleted.
func (d *devRun) trustDemoIssuer(ctx context.Context) error {
	record, err := os.ReadFile(d.folder.IssuerFile())
	if err != nil {
		return err
	}
	signer, err := devfolder.ReadSigner(d.folder.Dir)
	if err != nil {
		return err
	}
	token, err := signer.Sign(demoClaims(devfolder.Claims{
		Issuer: devfolder.IssuerURL, ClientID: "app", Audience: "resource_server",
	}, demoLifetime))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, devReadyTime)
	defer cancel()
	var refused error
	err = devcluster.Poll(ctx, trustInterval, func(ctx context.Context) (again error) {
		refused, again = trust(ctx, d.runner.Client(config.AdminID, 0), record, token)
		return again
	})
	return errors.Join(refused, err)
}

// trust creates the record, or checks the token if the record exists. refused is an error that
// another attempt would not change. again is an error after which another attempt may succeed, such
// as during an election.
func trust(ctx context.Context, admin *client.Client, record []byte, token string) (refused, again error) {
	_, err := admin.CreateIssuer(ctx, record)
	if statusOf(err) == http.StatusConflict { // an earlier dev on this directory created it
		exists := err
		var got client.Answer[client.TokenCheck]
		got, err = admin.CheckToken(ctx, devfolder.IssuerName, token)
		switch {
		case err == nil && !got.Value.Verified:
			return fmt.Errorf("the record of issuer %s does not verify a token signed with the key in this directory: %s",
				devfolder.IssuerName, got.Value.Reason), nil
		case statusOf(err) == http.StatusNotFound:
			return exists, nil
		}
	}
	if code := statusOf(err); code == 0 || code == http.StatusServiceUnavailable {
		return nil, err
	}
	return err, nil
}

// statusOf returns the HTTP status of an error answer; 0 if no node answered with an error.
func statusOf(err error) int {
	var e *client.StatusError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}
