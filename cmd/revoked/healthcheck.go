package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/files"
)

func healthcheckCommand() *cobra.Command {
	var addr, ca, configFile string
	var timeout time.Duration
	var revoke bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit with 0 if the node is ready, otherwise with 1",
		Long: "Check whether a node is ready to answer introspections. A follower can be ready too. The node is\n" +
			"the one in --addr or REVOKED_ADDR. Otherwise --config, REVOKED_CONFIG or REVOKED_API_CERT select\n" +
			"the node on this machine. The command needs no shell, so containers can use it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, tlsConfig, err := resolve(addr, ca, configFile)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return client.Ready(ctx, &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}, url, revoke)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "",
		"URL of the API, or http URL of metrics_addr (REVOKED_ADDR; default "+call.DefaultAddr+")")
	cmd.Flags().StringVar(&ca, "cacert", "",
		"file of the CA of the API's certificate (REVOKED_CACERT; default: the system's)")
	cmd.Flags().StringVar(&configFile, "config", "", "settings file of the node on this machine (REVOKED_CONFIG)")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "maximum time to wait for an answer")
	cmd.Flags().BoolVar(&revoke, "revoke", false, "also require a leader")
	return cmd
}

// resolve returns the URL to request and the TLS configuration for it.
func resolve(addr, ca, configFile string) (_ string, tlsConfig *tls.Config, err error) {
	ca = cmp.Or(ca, os.Getenv("REVOKED_CACERT"))
	addr, _, _ = strings.Cut(cmp.Or(addr, os.Getenv("REVOKED_ADDR")), ",")
	own := cmp.Or(configFile, os.Getenv("REVOKED_CONFIG"), os.Getenv("REVOKED_API_CERT")) != ""
	if configFile != "" || addr == "" && own {
		flags := config.Flags{File: configFile}
		cfg, err := flags.Read(os.LookupEnv)
		if err != nil {
			return "", nil, err
		}
		if cfg.MetricsAddr != "" {
			return "http://" + config.DialAddress(cfg.MetricsAddr, "127.0.0.1"), nil, nil
		}
		addr = config.DialAddress(cfg.APIAddr, "127.0.0.1")
		if ca == "" {
			tlsConfig, err = trustOnly(cfg.APICert, cfg.APIKey)
			return "https://" + addr, tlsConfig, err
		}
	}
	addr = strings.TrimSuffix(strings.TrimSpace(cmp.Or(addr, call.DefaultAddr)), "/")
	if !strings.Contains(addr, "://") {
		addr = "https://" + addr
	}
	if _, err := url.Parse(addr); err != nil {
		return "", nil, cli.UsageError("%w", err)
	}
	if tlsConfig, err = files.TrustCA(ca); err != nil {
		err = fmt.Errorf("read the CA: %w", err)
	}
	return addr, tlsConfig, err
}

// trustOnly returns a TLS configuration that trusts only the certificate of the node itself.
func trustOnly(certFile, keyFile string) (*tls.Config, error) {
	cert, err := files.KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the API's certificate: %w", err)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	tlsConfig.RootCAs.AddCert(cert.Leaf)
	switch leaf := cert.Leaf; {
	case len(leaf.DNSNames) > 0:
		tlsConfig.ServerName = strings.Replace(leaf.DNSNames[0], "*", "any", 1) // a name that the wildcard matches
	case len(leaf.IPAddresses) > 0:
		tlsConfig.ServerName = leaf.IPAddresses[0].String()
	}
	return tlsConfig, nil
}
