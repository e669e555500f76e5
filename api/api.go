package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"revoked"
)

// Config is what an [API] is made of. Only Backend and Issuer have no default.
type Config struct {
	Backend    Backend
	Log        *slog.Logger          // default: nowhere
	Registerer prometheus.Registerer // default: a registry of its own
	Gatherer   prometheus.Gatherer   // what /metrics shows; default: nothing
	Now        Clock                 // default: time.Now

	// Issuer is the issuer identifier of RFC 8414, an absolute URL without query and fragment.
	Issuer string
	// MetadataExtra is merged into the metadata document; it cannot change what this package says of
	// itself (issuer, the two endpoints and their authentication methods).
	MetadataExtra map[string]any

	RequireHTTPS bool // plain HTTP gets 400 and nothing happens
	RequirePost  bool // GET on an OAuth endpoint gets 405

	CORSOrigins    []string       // exact origins, or "*"; none: no CORS
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-Proto and X-Forwarded-For are believed
	CheckNetworks  []netip.Prefix // peers that may call /v1/check without credentials

	MetricsOnAPI bool // serve /metrics on the API handler too

	AuthFailuresPerMinute int           // for each client id; default 60
	MissesPerSecond       int           // introspections of unknown tokens, for each caller; default 2000
	RequestTimeout        time.Duration // default 5s

	Version string
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Gatherer == nil {
		c.Gatherer = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.AuthFailuresPerMinute == 0 {
		c.AuthFailuresPerMinute = 60
	}
	if c.MissesPerSecond == 0 {
		c.MissesPerSecond = 2000
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 5 * time.Second
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Backend == nil:
		return fmt.Errorf("%w: api: Backend is missing", revoked.ErrInvalid)
	case c.AuthFailuresPerMinute < 0:
		return fmt.Errorf("%w: api: AuthFailuresPerMinute is negative", revoked.ErrInvalid)
	case c.MissesPerSecond < 0:
		return fmt.Errorf("%w: api: MissesPerSecond is negative", revoked.ErrInvalid)
	case c.RequestTimeout < 0:
		return fmt.Errorf("%w: api: RequestTimeout is negative", revoked.ErrInvalid)
	}
	return nil
}

// An API answers HTTP requests for one node. It starts no goroutine; there is nothing to close.
type API struct {
	cfg      Config
	echo     *echo.Echo
	table    []answer
	metrics  *metrics
	failures *budget // failed authentications, by client id
	misses   *budget // introspections of unknown tokens, by caller
	secrets  *verifier
	ids      *requestIDs
	issuer   issuer
	metadata []byte
	pool     *sync.Pool // of *oauthRequest
	routes   map[string]bool
}

// New returns the API of a node. The error wraps [revoked.ErrInvalid] when the configuration is wrong.
func New(cfg Config) (*API, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	iss, err := parseIssuer(cfg.Issuer, cfg.RequireHTTPS)
	if err != nil {
		return nil, err
	}
	doc, err := metadataDocument(iss, cfg.MetadataExtra)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	v, err := newVerifier(cfg.RequestTimeout)
	if err != nil {
		return nil, err
	}
	ids, err := newRequestIDs()
	if err != nil {
		return nil, err
	}
	a := &API{
		cfg: cfg, table: answers(), metrics: m, secrets: v, ids: ids, issuer: iss, metadata: doc, pool: &sync.Pool{},
		failures: newBudget(rate.Limit(float64(cfg.AuthFailuresPerMinute)/60), cfg.AuthFailuresPerMinute),
		misses:   newBudget(rate.Limit(cfg.MissesPerSecond), cfg.MissesPerSecond),
	}
	a.echo = a.router()
	a.registerOAuth(a.echo)
	a.registerCheck(a.echo)
	a.registerAdmin(a.echo)
	a.registerHealth(a.echo, cfg.MetricsOnAPI)
	a.routes = routesOf(a.echo)
	return a, nil
}

// router returns an echo with what every request goes through.
func (a *API) router() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort, e.Debug = true, true, false
	e.IPExtractor = echo.ExtractIPDirect()
	if len(a.cfg.TrustedProxies) > 0 {
		opts := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
		for _, p := range a.cfg.TrustedProxies {
			opts = append(opts, echo.TrustIPRange(ipNet(p)))
		}
		e.IPExtractor = echo.ExtractIPFromXFFHeader(opts...)
	}
	e.Use(a.around)
	return e
}

// Handler answers everything of the API port. Requests may be served at once.
func (a *API) Handler() http.Handler { return a.echo }

// MetricsHandler answers /livez, /readyz and /metrics only, for a listener of its own; it takes
// plain HTTP whatever RequireHTTPS says.
func (a *API) MetricsHandler() http.Handler {
	b := *a
	b.cfg.RequireHTTPS = false
	e := b.router()
	b.registerHealth(e, true)
	b.routes = routesOf(e)
	return e
}

// routesOf returns the paths of an echo's routes. echo's Context.Path is the request's own path where no
// route matched, which must not become a label or a log line.
func routesOf(e *echo.Echo) map[string]bool {
	routes := make(map[string]bool)
	for _, r := range e.Routes() {
		routes[r.Path] = true
	}
	return routes
}
