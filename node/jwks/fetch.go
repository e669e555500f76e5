package jwks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"revoked"
	"revoked/internal/textsafe"
	"revoked/node/jwt"
)

// Limits of a fetch.
const (
	fetchTimeout = 5 * time.Second
	maxHeader    = 32 << 10 // bytes
	maxError     = 300      // bytes of an error
)

// ErrAddress is returned for an address that the configuration does not allow.
var ErrAddress = errors.New("address is not allowed")

// A Config configures a [Fetcher]. The zero value verifies certificates with the system's roots,
// connects directly and allows public addresses only.
type Config struct {
	CAFile string // PEM file of the roots that replace the system's roots; it is read at each fetch
	// Allow lists networks beyond the public ones. A server in a loopback, link-local, private or
	// otherwise reserved network must be in one of them.
	Allow []netip.Prefix
	// Proxy is the HTTP proxy for every fetch, or nil. The proxy resolves host names, so only the
	// proxy can check the resolved addresses.
	Proxy *url.URL
}

// A Fetcher fetches key sets. It may be used concurrently, and closes its connection after each
// fetch.
type Fetcher struct{ cfg Config }

// NewFetcher returns a fetcher.
func NewFetcher(cfg Config) *Fetcher { return &Fetcher{cfg: cfg} }

// A Set is a fetched key set.
type Set struct {
	Keys   []revoked.IssuerKey
	MaxAge time.Duration // time for which the set may be cached; 0: the server set no limit
}

// Fetch fetches the set at uri. It waits for at most 5 seconds. It returns an error for a set
// without a usable key, and for a URI that is not https.
func (f *Fetcher) Fetch(ctx context.Context, uri string) (Set, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("no answer within %s", fetchTimeout))
	defer cancel()
	set, err := f.fetch(ctx, uri)
	if err == nil {
		return set, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var whole *url.Error // contains the URI, which may contain a secret
	if errors.As(err, &whole) {
		err = whole.Err
	}
	return Set{}, cleanError{err}
}

// A cleanError is an error whose text is printable and short.
type cleanError struct{ error }

func (e cleanError) Error() string { return textsafe.Clean(e.error.Error(), maxError) }
func (e cleanError) Unwrap() error { return e.error }

func (f *Fetcher) fetch(ctx context.Context, uri string) (Set, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil || req.URL.Scheme != "https" {
		return Set{}, errors.New("want a URI that begins with https://")
	}
	if addr, err := netip.ParseAddr(req.URL.Hostname()); err == nil && f.cfg.Proxy != nil {
		if err := f.check(addr); err != nil {
			return Set{}, err
		}
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("Accept-Encoding", "identity")
	transport, err := f.transport()
	if err != nil {
		return Set{}, err
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(req)
	if err != nil {
		return Set{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	return read(resp)
}

func read(resp *http.Response) (Set, error) {
	if resp.StatusCode != http.StatusOK {
		return Set{}, fmt.Errorf("server answered with status %d, want 200 (redirects are not followed)", resp.StatusCode)
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return Set{}, errors.New("server used a content encoding that was not requested")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, jwt.MaxSetBytes+1))
	if err != nil {
		return Set{}, err
	}
	keys, err := jwt.ParseFetched(body)
	if err != nil {
		return Set{}, errors.New(revoked.Detail(err))
	}
	return Set{Keys: keys, MaxAge: maxAge(resp.Header)}, nil
}

// transport returns the transport of one fetch. HTTP/1.1 suffices for one request.
func (f *Fetcher) transport() (*http.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.cfg.CAFile != "" {
		pem, err := os.ReadFile(f.cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read jwks_ca_file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("read jwks_ca_file: file contains no certificate")
		}
	}
	dialer := net.Dialer{Timeout: fetchTimeout}
	t := &http.Transport{
		TLSClientConfig: tlsConfig, DisableKeepAlives: true, DisableCompression: true,
		MaxResponseHeaderBytes: maxHeader, TLSHandshakeTimeout: fetchTimeout,
	}
	if f.cfg.Proxy != nil {
		t.Proxy = http.ProxyURL(f.cfg.Proxy)
	} else {
		dialer.Control = f.control
	}
	t.DialContext = dialer.DialContext
	return t, nil
}

// control checks an address after DNS, just before the connection is made.
func (f *Fetcher) control(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAddress, err)
	}
	return f.check(addr.Addr())
}

func (f *Fetcher) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if isPublic(addr) {
		return nil
	}
	for _, network := range f.cfg.Allow {
		if network.Contains(addr) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not public, and is not in jwks_allow_networks", ErrAddress, addr)
}

// reserved lists the networks that are not public, although Go classifies them as global unicast.
// They are for this host, shared addresses (RFC 6598), protocol assignments, benchmarks and class
// E, and two more IPv6 networks.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("fec0::/10"),
}

// isPublic reports whether an address is outside all loopback, link-local, private and reserved
// networks. An IPv6 address that embeds an IPv4 address (NAT64, RFC 6052; 6to4, RFC 3056) is public
// if and only if the IPv4 address is.
func isPublic(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, network := range reserved {
		if network.Contains(addr) {
			return false
		}
	}
	b := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr):
		return isPublic(netip.AddrFrom4([4]byte(b[12:])))
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		return isPublic(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return true
}

// maxAge returns how long a response may be cached, from Cache-Control and Age (RFC 9111 sections
// 5.1 and 5.2.2). It returns 0 if the response has no max-age, and one second if the response must
// not be cached.
func maxAge(h http.Header) time.Duration {
	var age time.Duration
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, arg, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return time.Second
			case "max-age":
				if n, err := strconv.ParseUint(strings.Trim(arg, `"`), 10, 31); err == nil {
					age = max(time.Second, time.Duration(n)*time.Second)
				}
			}
		}
	}
	if n, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil && age > 0 {
		age = max(time.Second, age-time.Duration(n)*time.Second)
	}
	return age
}
