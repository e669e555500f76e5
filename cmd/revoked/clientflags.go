package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// defaultAddr is where the first node of `revoked dev` listens.
const defaultAddr = "https://127.0.0.1:8443"

// A connection is what a client command is told about the node to talk to: flags first, then the
// environment. A secret is better in its file or variable than in its flag:
// command lines are seen by every user of a machine.
type connection struct {
	addr       string
	caCert     string
	clientID   string
	secretText string
	secretFile string
	clientCert string
	clientKey  string
	output     string
	timeout    time.Duration
}

// addConnectionFlags gives cmd the flags of a client command.
func addConnectionFlags(cmd *cobra.Command) *connection {
	c := &connection{}
	f := cmd.Flags()
	f.StringVar(&c.addr, "addr", "", "nodes to talk to, https URLs separated by commas (REVOKED_ADDR; default "+defaultAddr+")")
	f.StringVar(&c.caCert, "cacert", "", "file of the CA that signed the nodes' API certificates (REVOKED_CACERT; default: the system's)")
	f.StringVar(&c.clientID, "client-id", "", "client id to authenticate as (REVOKED_CLIENT_ID)")
	f.StringVar(&c.secretText, "client-secret", "", "the client secret (REVOKED_CLIENT_SECRET); every user of this machine sees it in the list of processes")
	f.StringVar(&c.secretFile, "client-secret-file", "", "file that holds the client secret (REVOKED_CLIENT_SECRET_FILE)")
	f.StringVar(&c.clientCert, "client-cert", "", "file of the TLS client certificate (REVOKED_CLIENT_CERT)")
	f.StringVar(&c.clientKey, "client-key", "", "file of its key (REVOKED_CLIENT_KEY)")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "longest wait for one answer")
	addOutputFlag(cmd, &c.output)
	return c
}

// addOutputFlag gives cmd the flag -o.
func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", `form of the answer: "table" or "json" (REVOKED_OUTPUT; default table)`)
}

// wantJSON reports whether the answer is to be JSON.
func wantJSON(output string) (bool, error) {
	switch first(output, os.Getenv("REVOKED_OUTPUT"), "table") {
	case "json":
		return true, nil
	case "table":
		return false, nil
	}
	return false, usageError(`output must be "table" or "json"`)
}

// first returns the first of values that is not empty.
func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// open returns the client for the nodes that flags and environment name.
func (c *connection) open() (*apiClient, error) {
	asJSON, err := wantJSON(c.output)
	if err != nil {
		return nil, err
	}
	addrs, err := parseAddrs(first(c.addr, os.Getenv("REVOKED_ADDR"), defaultAddr))
	if err != nil {
		return nil, err
	}
	secret, err := c.secret()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := c.tls()
	if err != nil {
		return nil, err
	}
	if c.timeout <= 0 {
		return nil, usageError("--timeout must be more than 0")
	}
	return &apiClient{
		addrs:    addrs,
		id:       first(c.clientID, os.Getenv("REVOKED_CLIENT_ID")),
		secret:   secret,
		asJSON:   asJSON,
		timeout:  c.timeout,
		customCA: tlsConfig.RootCAs != nil,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: min(c.timeout, connectTime)}).DialContext,
				TLSClientConfig:     tlsConfig,
				TLSHandshakeTimeout: min(c.timeout, connectTime),
				ForceAttemptHTTP2:   true,
			},
			// The API never redirects. Following one would carry the secret to a stranger.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// parseAddrs reads a comma list of https URLs; the scheme may be left out.
func parseAddrs(list string) ([]string, error) {
	var addrs []string
	for a := range strings.SplitSeq(list, ",") {
		a = strings.TrimSpace(a)
		if a == "" {
			continue
		}
		if !strings.Contains(a, "://") {
			a = "https://" + a
		}
		u, err := url.Parse(a)
		if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			// The text is not repeated: a pasted URL may carry a password.
			return nil, usageError("REVOKED_ADDR (or --addr) holds something that is no URL of a node; it looks like https://node1.example:8443")
		}
		if u.Scheme != "https" {
			return nil, usageError("%s: REVOKED_ADDR (or --addr) must name https URLs; credentials are not sent in the clear", a)
		}
		addrs = append(addrs, strings.TrimRight(u.String(), "/"))
	}
	if len(addrs) == 0 {
		return nil, usageError("REVOKED_ADDR (or --addr) names no node")
	}
	return addrs, nil
}

// maxSecretFile bounds what is read from a file of a secret.
const maxSecretFile = 4 << 10

// secret returns the client secret: that of the flags, else that of the environment.
func (c *connection) secret() (string, error) {
	file := c.secretFile
	switch {
	case c.secretText != "" && file != "":
		return "", usageError("give --client-secret or --client-secret-file, not both")
	case c.secretText != "":
		return c.secretText, nil
	case file == "":
		if s := os.Getenv("REVOKED_CLIENT_SECRET"); s != "" {
			return s, nil
		}
		file = os.Getenv("REVOKED_CLIENT_SECRET_FILE")
	}
	if file == "" {
		return "", nil
	}
	b, err := readBounded(file, maxSecretFile)
	if err != nil {
		return "", fmt.Errorf("read the client secret: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", fmt.Errorf("read the client secret: %s is empty", file)
	}
	return s, nil
}

// tls returns the TLS settings of the client.
func (c *connection) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := first(c.caCert, os.Getenv("REVOKED_CACERT")); file != "" {
		pem, err := readBounded(file, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("read the CA (REVOKED_CACERT): %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the CA (REVOKED_CACERT): %s holds no PEM certificate", file)
		}
	}
	certFile := first(c.clientCert, os.Getenv("REVOKED_CLIENT_CERT"))
	keyFile := first(c.clientKey, os.Getenv("REVOKED_CLIENT_KEY"))
	if (certFile == "") != (keyFile == "") {
		return nil, usageError("REVOKED_CLIENT_CERT and REVOKED_CLIENT_KEY (or their flags) go together; only one is set")
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate (REVOKED_CLIENT_CERT, REVOKED_CLIENT_KEY): %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// errTooLong is returned when a file holds more than what it is read for can need.
var errTooLong = errors.New("is too long")
