package api

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
)

// Config configures an [API]. Backend and Issuer are required.
type Config struct {
	Backend Backend
	Log     *slog.Logger // default: discard
	// RequestLog gets the lines of requests that may be lost if the process is killed: those below the
	// level warn, of callers other than administrators. Default: Log.
	RequestLog *slog.Logger
	Registerer prometheus.Registerer // default: a new registry
	Gatherer   prometheus.Gatherer   // content of /metrics; default: empty
	Now        func() time.Time      // default: time.Now

	// Issuer is the issuer identifier of RFC 8414, an absolute URL without query and fragment.
	Issuer string
	// MetadataExtra is merged into the metadata document. It cannot replace [MetadataMembers].
	MetadataExtra map[string]any

	RequireHTTPS bool // plain HTTP gets 400 and has no effect
	RequirePost  bool // GET on an OAuth endpoint gets 405

	CORSOrigins    []string       // exact origins, or "*"; empty: no CORS
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-Proto and X-Forwarded-For are trusted
	// CheckNetworks are the networks of peers that may call /v1/check without credentials, with the
	// audiences of each. A peer is as a resource server with the audiences of its longest prefix. "*"
	// is every audience. Without audiences, only tokens pass that name none. Prefixes are masked.
	CheckNetworks map[netip.Prefix][]string

	MetricsOnAPI bool // also serve /metrics on the API port

	AuthFailuresPerMinute int // per client id; default 60
	MissesPerSecond       int // introspections of unknown tokens per caller; default 2000
	FeedLimit             int // open feeds; default 1000
	FeedLimitPerClient    int // default 100
	BulkLimit             int // bulk registrations at once; default 16
	BulkLimitPerClient    int // default 4

	// TempDir is the folder of the results that callers of bulk registrations have not read. Empty:
	// the system's temporary folder.
	TempDir              string
	SpoolLimit           int64 // bytes of these results in all; default 512 MiB
	SpoolLimitPerRequest int64 // bytes of these results of one request; default 64 MiB

	// PublicRevocationsPerMinute limits the revocations of unknown tokens by one public client from
	// one address; default 30.
	PublicRevocationsPerMinute int
	RequestTimeout             time.Duration // default 5s
	MaxRequestsPerClient       int           // in progress, per client id; default 5000

	Version string
}

// withDefaults returns c with the defaults of absent fields.
func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.RequestLog = cmp.Or(c.RequestLog, c.Log)
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Gatherer == nil {
		c.Gatherer = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.AuthFailuresPerMinute = cmp.Or(c.AuthFailuresPerMinute, 60)
	c.MissesPerSecond = cmp.Or(c.MissesPerSecond, 2000)
	c.FeedLimit, c.FeedLimitPerClient = cmp.Or(c.FeedLimit, 1000), cmp.Or(c.FeedLimitPerClient, 100)
	c.BulkLimit, c.BulkLimitPerClient = cmp.Or(c.BulkLimit, 16), cmp.Or(c.BulkLimitPerClient, 4)
	c.SpoolLimit = cmp.Or(c.SpoolLimit, 512<<20)
	c.SpoolLimitPerRequest = cmp.Or(c.SpoolLimitPerRequest, 64<<20)
	c.PublicRevocationsPerMinute = cmp.Or(c.PublicRevocationsPerMinute, 30)
	c.MaxRequestsPerClient = cmp.Or(c.MaxRequestsPerClient, 5000)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	return c
}

// check returns an error for an invalid value.
func (c Config) check() error {
	invalid := func(problem string) error { return fmt.Errorf("%w: api: %s", revoked.ErrInvalid, problem) }
	switch {
	case c.Backend == nil:
		return invalid("Backend is missing")
	case c.AuthFailuresPerMinute < 0:
		return invalid("AuthFailuresPerMinute is negative")
	case c.MissesPerSecond < 0:
		return invalid("MissesPerSecond is negative")
	case min(c.FeedLimit, c.FeedLimitPerClient, c.BulkLimit, c.BulkLimitPerClient) < 0:
		return invalid("a limit of feeds or bulk registrations is negative")
	case min(c.SpoolLimit, c.SpoolLimitPerRequest) < 0:
		return invalid("a limit of the spool is negative")
	case c.PublicRevocationsPerMinute < 0:
		return invalid("PublicRevocationsPerMinute is negative")
	case c.MaxRequestsPerClient < 0:
		return invalid("MaxRequestsPerClient is negative")
	case c.RequestTimeout < 0:
		return invalid("RequestTimeout is negative")
	}
	for n := range c.CheckNetworks {
		// Such a network would contain no address, or be a second entry of the same network.
		if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
			return invalid(fmt.Sprintf("CheckNetworks: want a masked IPv4 or IPv6 network, got %v", n))
		}
	}
	return nil
}
