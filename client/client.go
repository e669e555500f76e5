package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultTimeout is the default of Config.Timeout.
const DefaultTimeout = 30 * time.Second

// maxConnect bounds the time for connecting to one node.
const maxConnect = 5 * time.Second

// Errors of this package. All others come from the network, or are a [*StatusError].
var (
	// ErrAddr is returned when an address is not the https URL of a node.
	ErrAddr = errors.New("invalid node URL")
	// ErrOneNode is returned when a call acts on the called node, but several are configured.
	ErrOneNode = errors.New("call acts on one node, but several are configured")
	// ErrTimeout is returned when a call exceeds its timeout.
	ErrTimeout = errors.New("no answer")
	// ErrAnswer is returned when this version cannot parse a response.
	ErrAnswer = errors.New("unexpected answer")
)

// Config names the nodes and the credentials of a Client.
type Config struct {
	Addrs  []string // https URLs; see [ParseAddrs]
	ID     string   // client id; empty: calls without credentials
	Secret string   // client secret; empty: Key or the client certificate in TLS authenticates the client
	Key    *Key     // signs a new assertion for each call; nil: see Secret
	// Audience is the issuer of the nodes, for which Key signs. Empty: the issuer in the metadata of
	// the called node. Set Audience if the key is also registered elsewhere. Otherwise, a false node
	// could name the issuer of another server.
	Audience string
	TLS      *tls.Config   // nil: TLS 1.2 and the system's CAs
	Timeout  time.Duration // limit for one call across all nodes; 0: DefaultTimeout
	// HTTP, if set, is used in place of a client made from TLS and Timeout.
	HTTP      *http.Client
	UserAgent string // empty: "revoked-client"
}

// A Client calls the API. It may be used concurrently.
type Client struct {
	cfg      Config
	asserter *asserter // nil without a key
}

// New returns a client. It connects on the first call.
func New(cfg Config) (*Client, error) {
	if len(cfg.Addrs) == 0 {
		return nil, fmt.Errorf("%w: the list is empty", ErrAddr)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "revoked-client"
	}
	if cfg.HTTP == nil {
		connect := min(cfg.Timeout, maxConnect)
		if cfg.TLS == nil {
			cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		cfg.HTTP = &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: connect}).DialContext,
				TLSClientConfig:     cfg.TLS,
				TLSHandshakeTimeout: connect,
				ForceAttemptHTTP2:   true,
			},
			// The API never redirects. Following a redirect would send the secret to another server.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	c := &Client{cfg: cfg}
	if cfg.Key == nil {
		return c, nil
	}
	if cfg.ID == "" || cfg.Secret != "" {
		return nil, fmt.Errorf("%w: a key needs an id and excludes a secret", ErrKey)
	}
	var err error
	c.asserter, err = newAsserter(cfg.ID, *cfg.Key, cfg.Audience)
	return c, err
}

// ParseAddrs parses a list of https URLs, separated by commas. The scheme may be omitted. Errors
// wrap [ErrAddr] and do not contain the text, which may include a password.
func ParseAddrs(list string) ([]string, error) {
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
			return nil, fmt.Errorf("%w (want https://host:port)", ErrAddr)
		}
		if u.Scheme != "https" {
			return nil, fmt.Errorf("%w: %s (want https: credentials are not sent in the clear)", ErrAddr, a)
		}
		addrs = append(addrs, strings.TrimRight(u.String(), "/"))
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%w: the list is empty", ErrAddr)
	}
	return addrs, nil
}
