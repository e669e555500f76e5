package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func healthcheckCommand() *cobra.Command {
	var addr, ca string
	var timeout time.Duration
	var revoke bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit with 0 when the node is ready, else with 1",
		Long: "Ask a node whether it can answer introspections with the promise kept, for containers without\n" +
			"a shell. A follower is ready. REVOKED_ADDR and REVOKED_CACERT name the node and its CA.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			addr, _, _ := strings.Cut(first(addr, os.Getenv("REVOKED_ADDR"), defaultAddr), ",")
			addr = strings.TrimSpace(addr)
			if !strings.Contains(addr, "://") {
				addr = "https://" + addr
			}
			tlsConfig, err := trustConfig(first(ca, os.Getenv("REVOKED_CACERT")))
			if err != nil {
				return err
			}
			url := strings.TrimSuffix(addr, "/") + "/readyz?verbose"
			if revoke {
				url += "&revoke"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return askReady(ctx, url, tlsConfig)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", "URL of the API, or plain http of metrics_addr (REVOKED_ADDR; default "+defaultAddr+")")
	cmd.Flags().StringVar(&ca, "cacert", "", "file of the CA of the API's certificate (REVOKED_CACERT; default: the system's)")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "longest wait")
	cmd.Flags().BoolVar(&revoke, "revoke", false, "also want a leader")
	return cmd
}

// trustConfig returns a TLS configuration that trusts the CAs in the file; empty: the system's.
func trustConfig(file string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if file == "" {
		return cfg, nil
	}
	pem, err := readBounded(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return cfg, nil
}

// askReady returns nil when url answers 200, else an error with what it said.
func askReady(ctx context.Context, url string, tlsConfig *tls.Config) error {
	tr := &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usageError("%w", err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready (%d): %s", resp.StatusCode, strings.TrimSpace(string(said)))
	}
	return nil
}
