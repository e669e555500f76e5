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
	var target healthTarget
	var timeout time.Duration
	var revoke bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit with 0 when the node is ready, else with 1",
		Long: "Ask a node whether it can answer introspections with the promise kept, for containers without\n" +
			"a shell. A follower is ready. The node is that of --addr or REVOKED_ADDR; else, where --config,\n" +
			"REVOKED_CONFIG or REVOKED_API_CERT tell the settings of the node on this machine, that one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, tlsConfig, err := target.resolve()
			if err != nil {
				return err
			}
			url = strings.TrimSuffix(url, "/") + "/readyz?verbose"
			if revoke {
				url += "&revoke"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return askReady(ctx, url, tlsConfig)
		},
	}
	cmd.Flags().StringVar(&target.addr, "addr", "", "URL of the API, or plain http of metrics_addr (REVOKED_ADDR; default "+defaultAddr+")")
	cmd.Flags().StringVar(&target.ca, "cacert", "", "file of the CA of the API's certificate (REVOKED_CACERT; default: the system's)")
	cmd.Flags().StringVar(&target.config, "config", "", "settings of the node on this machine, to ask it (REVOKED_CONFIG)")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "longest wait")
	cmd.Flags().BoolVar(&revoke, "revoke", false, "also want a leader")
	return cmd
}

// A healthTarget is what the command line says about whom to ask.
type healthTarget struct{ addr, ca, config string }

// resolve returns the URL of the API, and whom to trust there.
func (t healthTarget) resolve() (string, *tls.Config, error) {
	ca := first(t.ca, os.Getenv("REVOKED_CACERT"))
	addr, _, _ := strings.Cut(first(t.addr, os.Getenv("REVOKED_ADDR")), ",")
	own := first(t.config, os.Getenv("REVOKED_CONFIG"), os.Getenv("REVOKED_API_CERT")) != ""
	if t.config != "" || addr == "" && own {
		flags := configFlags{file: t.config}
		cfg, err := flags.load(os.LookupEnv)
		if err != nil {
			return "", nil, err
		}
		return cfg.healthURL(ca)
	}
	addr = strings.TrimSpace(first(addr, defaultAddr))
	if !strings.Contains(addr, "://") {
		addr = "https://" + addr
	}
	tlsConfig, err := trustConfig(ca)
	return addr, tlsConfig, err
}

// healthURL returns how to reach the node with these settings from its own machine. Without a CA it
// trusts the one certificate that the node serves.
func (c *config) healthURL(ca string) (string, *tls.Config, error) {
	if c.MetricsAddr != "" {
		return "http://" + orAddress("", c.MetricsAddr, "127.0.0.1"), nil, nil
	}
	addr := "https://" + orAddress("", c.APIAddr, "127.0.0.1")
	if ca != "" {
		tlsConfig, err := trustConfig(ca)
		return addr, tlsConfig, err
	}
	cert, err := tls.LoadX509KeyPair(c.APICert, c.APIKey)
	if err != nil {
		return "", nil, fmt.Errorf("read the API's certificate: %w", err)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	tlsConfig.RootCAs.AddCert(cert.Leaf)
	switch leaf := cert.Leaf; {
	case len(leaf.DNSNames) > 0:
		tlsConfig.ServerName = strings.Replace(leaf.DNSNames[0], "*", "any", 1) // a wildcard
	case len(leaf.IPAddresses) > 0:
		tlsConfig.ServerName = leaf.IPAddresses[0].String()
	}
	return addr, tlsConfig, nil
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
