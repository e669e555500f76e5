// Package call calls the API for a command. It defines the flags of a connection, makes the call,
// prints its output, and advises the user if the call fails.
//
// A flag overrides its environment variable, a secret comes from one source only, and an error
// never contains a secret. A call ends with the context of the command, or after --timeout.
package call

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/client"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/files"
)

// DefaultAddr is the address of the first node of `revoked dev`.
const DefaultAddr = "https://127.0.0.1:8443"

// MaxSecretFile bounds a secret file, in bytes.
const MaxSecretFile = 4 << 10

// Flags are the flags of a command that calls the API. A flag overrides its environment
// variable.
type Flags struct {
	addr       string
	caCert     string
	clientID   string
	secretText string
	secretFile string
	jwtKey     string
	clientCert string
	clientKey  string
	output     string
	timeout    time.Duration
}

// AddFlags adds the flags to cmd. Read them with [Flags.Open] once cobra has parsed the arguments.
func AddFlags(cmd *cobra.Command) *Flags {
	c := AddConnectionFlags(cmd)
	cli.AddOutputFlag(cmd, &c.output)
	return c
}

// AddConnectionFlags adds the flags of a connection, but not -o, for a command that writes a file.
// Read them with [Flags.OpenEach].
func AddConnectionFlags(cmd *cobra.Command) *Flags {
	c := &Flags{}
	f := cmd.Flags()
	f.StringVar(&c.addr, "addr", "",
		"nodes to call, https URLs separated by commas (REVOKED_ADDR; default "+DefaultAddr+")")
	f.StringVar(&c.caCert, "cacert", "",
		"file of the CA that signed the nodes' API certificates (REVOKED_CACERT; default: the system's)")
	f.StringVar(&c.clientID, "client-id", "", "client id to authenticate as (REVOKED_CLIENT_ID)")
	f.StringVar(&c.secretText, "client-secret", "",
		"client secret (REVOKED_CLIENT_SECRET); every user of this machine can see it in the process list")
	f.StringVar(&c.secretFile, "client-secret-file", "", "file of the client secret (REVOKED_CLIENT_SECRET_FILE)")
	f.StringVar(&c.jwtKey, "client-jwt-key", "",
		"file of the private key, PEM or JWK, that signs assertions for private_key_jwt (REVOKED_CLIENT_JWT_KEY)")
	f.StringVar(&c.clientCert, "client-cert", "", "file of the TLS client certificate (REVOKED_CLIENT_CERT)")
	f.StringVar(&c.clientKey, "client-key", "", "file of the private key of that certificate (REVOKED_CLIENT_KEY)")
	f.DurationVar(&c.timeout, "timeout", client.DefaultTimeout, "maximum time to wait for one answer")
	return c
}

// Open returns a client for the nodes in the flags or the environment, and whether the output is
// JSON.
func (c *Flags) Open() (api *client.Client, asJSON bool, err error) {
	if asJSON, err = cli.WantJSON(c.output); err != nil {
		return nil, false, err
	}
	cfg, err := c.config()
	if err != nil {
		return nil, false, err
	}
	api, err = client.New(cfg)
	return api, asJSON, err
}

// A Node is one node in the flags or the environment.
type Node struct {
	*client.Client
	Addr string // https URL
}

// OpenEach returns one client for each node in the flags or the environment.
func (c *Flags) OpenEach() ([]Node, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	var nodes []Node
	for _, addr := range cfg.Addrs {
		if slices.ContainsFunc(nodes, func(n Node) bool { return n.Addr == addr }) {
			continue
		}
		one := cfg
		one.Addrs, one.TLS = []string{addr}, cfg.TLS.Clone() // each transport changes its own copy
		api, err := client.New(one)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, Node{api, addr})
	}
	return nodes, nil
}

// config returns the nodes and the credential from the flags or the environment.
func (c *Flags) config() (cfg client.Config, err error) {
	cfg = client.Config{
		ID: cmp.Or(c.clientID, os.Getenv("REVOKED_CLIENT_ID")), Timeout: c.timeout, UserAgent: "revoked-cli",
	}
	if cfg.Addrs, err = client.ParseAddrs(cmp.Or(c.addr, os.Getenv("REVOKED_ADDR"), DefaultAddr)); err != nil {
		return cfg, cli.UsageError("REVOKED_ADDR or --addr: %w", err)
	}
	if cfg.Secret, cfg.Key, err = c.credential(); err != nil {
		return cfg, err
	}
	if err := checkClientID(cfg.ID); err != nil {
		return cfg, err
	}
	if cfg.Secret == "" && cfg.Key == nil && cmp.Or(c.clientCert, os.Getenv("REVOKED_CLIENT_CERT")) == "" {
		return cfg, cli.UsageError("no client secret: set REVOKED_CLIENT_SECRET_FILE or --client-secret-file")
	}
	if cfg.TLS, err = c.tls(); err != nil {
		return cfg, err
	}
	if c.timeout <= 0 {
		return cfg, cli.UsageError("--timeout must be more than 0")
	}
	return cfg, nil
}

// checkClientID returns a usage error for an id that no client can have. Every call needs a client
// id.
func checkClientID(id string) error {
	if id == "" {
		return cli.UsageError("no client id: set REVOKED_CLIENT_ID or --client-id, and its secret with " +
			"REVOKED_CLIENT_SECRET_FILE or --client-secret-file")
	}
	if err := revoked.ValidateClientID(id); err != nil {
		return cli.UsageError("REVOKED_CLIENT_ID or --client-id: %s", revoked.Detail(err))
	}
	return nil
}

// A source is a flag and its environment variable, which contain a secret or the path of a key.
type source struct{ flag, variable, value string }

// credential returns the secret or the key from the flags or the environment. Flags override the
// environment. Two sources of the same precedence are an error, because one of them would be
// ignored silently.
func (c *Flags) credential() (secret string, key *client.Key, err error) {
	sources := []source{
		{"--client-secret", "REVOKED_CLIENT_SECRET", c.secretText},
		{"--client-secret-file", "REVOKED_CLIENT_SECRET_FILE", c.secretFile},
		{"--client-jwt-key", "REVOKED_CLIENT_JWT_KEY", c.jwtKey},
	}
	fromFlags := slices.ContainsFunc(sources, func(s source) bool { return s.value != "" })
	var given []source
	for _, s := range sources {
		name := s.flag
		if !fromFlags {
			name, s.value = s.variable, os.Getenv(s.variable)
		}
		if s.value != "" {
			given = append(given, source{flag: name, variable: s.variable, value: s.value})
		}
	}
	switch {
	case len(given) > 1:
		return "", nil, cli.UsageError("set %s or %s, not both", given[0].flag, given[1].flag)
	case len(given) == 0:
		return "", nil, nil
	}
	switch s := given[0]; s.variable {
	case "REVOKED_CLIENT_SECRET":
		if secret, err = files.OneLine([]byte(s.value)); err != nil {
			err = cli.UsageError("%s: %w", s.flag, err)
		}
	case "REVOKED_CLIENT_SECRET_FILE":
		secret, err = ReadSecret(s.value)
	default:
		if key, err = readKey(s.value); err != nil {
			err = fmt.Errorf("read the key of the client (%s): %w", s.flag, err)
		}
	}
	return secret, key, err
}

// ReadSecret reads a client secret from a file with one line. It does not check the mode of the
// file: containers mount secrets that everybody may read.
func ReadSecret(file string) (string, error) {
	b, err := files.Read(file, MaxSecretFile)
	if err != nil {
		return "", fmt.Errorf("read the client secret: %w", err)
	}
	s, err := files.OneLine(b)
	if err != nil {
		return "", fmt.Errorf("read the client secret: %s: %w", file, err)
	}
	return s, nil
}

func (c *Flags) tls() (*tls.Config, error) {
	cfg, err := files.TrustCA(cmp.Or(c.caCert, os.Getenv("REVOKED_CACERT")))
	if err != nil {
		return nil, fmt.Errorf("read the CA (REVOKED_CACERT): %w", err)
	}
	certFile := cmp.Or(c.clientCert, os.Getenv("REVOKED_CLIENT_CERT"))
	keyFile := cmp.Or(c.clientKey, os.Getenv("REVOKED_CLIENT_KEY"))
	if (certFile == "") != (keyFile == "") {
		return nil, cli.UsageError("REVOKED_CLIENT_CERT and REVOKED_CLIENT_KEY (or their flags) go together; only one is set")
	}
	if certFile != "" {
		pair, err := files.KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate (REVOKED_CLIENT_CERT, REVOKED_CLIENT_KEY): %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// Advise adds advice for the user to the error of a call.
func (c *Flags) Advise(err error) error {
	if err == nil {
		return nil
	}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range several.Unwrap() {
			all = append(all, c.Advise(e))
		}
		return errors.Join(all...)
	}
	if errors.Is(err, client.ErrOneNode) {
		return cli.UsageError("%w: set REVOKED_ADDR (or --addr) to exactly one node", err)
	}
	if advice := c.adviceFor(err); advice != "" {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return err
}

func (c *Flags) adviceFor(err error) string {
	var status *client.StatusError
	if errors.As(err, &status) {
		switch status.Status {
		case http.StatusUnauthorized:
			return c.credentialAdvice()
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			return "try again"
		}
		return ""
	}
	var unknownCA x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var notTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &unknownCA) && cmp.Or(c.caCert, os.Getenv("REVOKED_CACERT")) == "":
		return "set REVOKED_CACERT or --cacert to the cluster's CA"
	case errors.As(err, &unknownCA):
		return "the CA in REVOKED_CACERT (or --cacert) did not sign this node's certificate"
	case errors.As(err, &wrongName):
		return "use a name or address that the node's certificate contains"
	case errors.As(err, &notTLS):
		return "this port does not use TLS: is it the API port?"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(err.Error(), "certificate required"):
		return "this looks like a cluster port: set REVOKED_ADDR or --addr to the API address"
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return "the port closed the connection: is it the API port, not the cluster or gossip port, and is the node running?"
	case errors.As(err, &op) && op.Op == "dial":
		return "is the node running, and is REVOKED_ADDR or --addr its API address?"
	case errors.Is(err, client.ErrTimeout):
		return "set a longer limit with --timeout"
	case errors.Is(err, client.ErrAnswer):
		return "is the node newer than this tool?"
	}
	return ""
}

// credentialAdvice names the settings of the credential that a node refused.
func (c *Flags) credentialAdvice() string {
	set := func(flag, variable string) bool { return cmp.Or(flag, os.Getenv(variable)) != "" }
	switch {
	case c.secretText != "" || c.secretFile != "":
	case set(c.jwtKey, "REVOKED_CLIENT_JWT_KEY"):
		return "check REVOKED_CLIENT_ID and REVOKED_CLIENT_JWT_KEY, and the jwks of the client"
	case !set("", "REVOKED_CLIENT_SECRET") && !set("", "REVOKED_CLIENT_SECRET_FILE") &&
		set(c.clientCert, "REVOKED_CLIENT_CERT"):
		return "check REVOKED_CLIENT_ID and REVOKED_CLIENT_CERT, the name or key in the record of the client, and " +
			"api_client_ca of the node"
	}
	return "check REVOKED_CLIENT_ID and REVOKED_CLIENT_SECRET (or REVOKED_CLIENT_SECRET_FILE)"
}
