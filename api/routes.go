package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/access"
	"revoked/api/request"
	"revoked/api/stream"
	"revoked/api/tokens"
)

// New returns the API of a node. The error wraps [revoked.ErrInvalid] if the configuration is
// invalid. New registers metrics, so it fails for a second API with the same Registerer.
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
	streams := newStreams(cfg, m)
	if err := streams.register(cfg.Registerer); err != nil {
		return nil, err
	}
	control := access.New(access.Config{
		Backend: cfg.Backend, Now: cfg.Now, FailuresPerMinute: cfg.AuthFailuresPerMinute, MaxWait: cfg.RequestTimeout,
		MaxRequests: cfg.MaxRequestsPerClient, TrustedProxies: cfg.TrustedProxies, Failures: m.authFailures,
		Throttled: m.throttled,
	})
	presented, err := tokens.New(tokens.Config{
		Backend: cfg.Backend, Access: control, Registerer: cfg.Registerer, Throttled: m.throttled, Now: cfg.Now,
		RequestTimeout: cfg.RequestTimeout, RequirePost: cfg.RequirePost, MissesPerSecond: cfg.MissesPerSecond,
		PublicRevocationsPerMinute: cfg.PublicRevocationsPerMinute, CheckNetworks: cfg.CheckNetworks,
	})
	if err != nil {
		return nil, err
	}
	a := &API{
		cfg: cfg, metrics: m, streams: streams, ids: request.NewIDs(), leaderless: &sparseLines{}, metadata: doc,
		issuerPath: iss.path, access: control, tokens: presented,
	}
	a.echo, a.routes = a.router(slices.Concat(a.oauthRoutes(), a.adminRoutes(), a.healthRoutes(cfg.MetricsOnAPI)))
	return a, nil
}

// Snapshots that are downloaded at once. Each keeps the files of a checkpoint on disk.
const (
	maxSnapshots       = 4
	maxClientSnapshots = 2
)

// newStreams returns the slots that cfg configures.
func newStreams(cfg Config, m *metrics) *streams {
	kind := func(kind, advice string, perClient, total int) *slots {
		return &slots{kind: strings.ReplaceAll(kind, "_", " "), advice: advice, perClient: perClient, total: total,
			open: make(map[string]int), throttled: m.throttled.WithLabelValues(kind)}
	}
	return &streams{
		spools: stream.NewBudget(cfg.SpoolLimit),
		feeds:  kind("feeds", "close one, or share one among its readers", cfg.FeedLimitPerClient, cfg.FeedLimit),
		bulks: kind("bulk_registrations", "send more lines in one of them, or wait until one has ended",
			cfg.BulkLimitPerClient, cfg.BulkLimit),
		snapshots: kind("snapshots", "wait until one has ended", maxClientSnapshots, maxSnapshots),
	}
}

// Handler returns the handler of the API port. It may serve requests concurrently. Serve it with
// package serve: limits of connections and of slow callers are there, not here.
func (a *API) Handler() http.Handler { return a.echo }

// MetricsHandler returns a handler of /livez, /readyz and /metrics only, for a separate listener.
// It accepts plain HTTP even with RequireHTTPS.
func (a *API) MetricsHandler() http.Handler {
	b := *a
	b.cfg.RequireHTTPS = false
	b.echo, b.routes = b.router(b.healthRoutes(true))
	return b.echo
}

// A route is a path with its handler for some methods.
type route struct {
	methods string // separated by spaces; empty: all, and the handler checks the method
	path    string
	handler request.Handler
}

// oauthRoutes returns the routes of the OAuth endpoints. Their handlers check the method, in the
// order of the contract.
func (a *API) oauthRoutes() []route {
	list := []route{
		{"", pathRevoke, a.tokens.Revoke},
		{"", pathInvokeRevoke, a.tokens.Revoke},
		{"", pathIntrospect, a.tokens.Introspect},
		{"", pathInvokeIntrospect, a.tokens.Introspect},
		{"", pathMetadata, a.getMetadata},
	}
	if a.issuerPath != "" {
		list = append(list, route{"", pathMetadata + a.issuerPath, a.getMetadata})
	}
	return list
}

// adminRoutes returns the routes of the admin and issuer API (/v1), each with the roles that may
// call it. A GET route also serves HEAD (RFC 9110 section 9.1).
func (a *API) adminRoutes() []route {
	admin := func(h request.Handler) request.Handler { return a.access.Require(h, revoked.RoleAdmin) }
	issuer := func(h request.Handler) request.Handler { return a.access.Require(h, issuerRoles...) }
	reader := func(h request.Handler) request.Handler { return a.access.Require(h, readerRoles...) }
	return []route{
		{"POST", "/v1/grants", issuer(a.postGrants)},
		{"GET HEAD", "/v1/grants", admin(a.getGrants)},
		{"GET HEAD", "/v1/grants/:id", issuer(a.getGrant)},
		{"DELETE", "/v1/grants/:id", issuer(a.deleteGrant)},

		{"POST", "/v1/explain", admin(a.tokens.Explain)},
		{"POST", "/v1/revocations", issuer(a.postRevocations)},
		{"GET HEAD", "/v1/revocations", reader(a.getRevocations)},

		{"GET HEAD", "/v1/clients", admin(a.getClients)},
		{"POST", "/v1/clients", admin(a.postClients)},
		{"GET HEAD", "/v1/clients/:id", admin(a.getClient)},
		{"PATCH", "/v1/clients/:id", admin(a.patchClient)},
		{"DELETE", "/v1/clients/:id", admin(a.deleteClient)},
		{"POST", "/v1/clients/:id/secret", admin(a.postSecret)},

		{"GET HEAD", "/v1/issuers", admin(a.getIssuers)},
		{"POST", "/v1/issuers", admin(a.postIssuers)},
		{"GET HEAD", "/v1/issuers/:id", admin(a.getIssuer)},
		{"PATCH", "/v1/issuers/:id", admin(a.patchIssuer)},
		{"DELETE", "/v1/issuers/:id", admin(a.deleteIssuer)},
		{"DELETE", "/v1/issuers/:id/keys/:thumbprint", admin(a.deleteIssuerKey)},
		{"POST", "/v1/issuers/:id/check", admin(a.postIssuerCheck)},
		{"POST", "/v1/issuers/:id/refresh", admin(a.postIssuerRefresh)},

		{"GET HEAD", "/v1/settings", admin(a.getSettings)},
		{"PATCH", "/v1/settings", admin(a.patchSettings)},

		{"GET HEAD", "/v1/members", admin(a.getMembers)},
		{"GET HEAD", "/v1/status", admin(a.getStatus)},
		{"POST", "/v1/cluster/join", admin(a.postJoin)},
		{"POST", "/v1/cluster/leave", admin(a.postLeave)},
		{"POST", "/v1/cluster/remove", admin(a.postRemove)},
		{"POST", "/v1/cluster/transfer-leader", admin(a.postTransferLeader)},
		{"POST", "/v1/cluster/promote", admin(a.postSuffrage(a.cfg.Backend.Promote))},
		{"POST", "/v1/cluster/demote", admin(a.postSuffrage(a.cfg.Backend.Demote))},
		{"POST", "/v1/cluster/admit", admin(a.postAdmit)},
		{"DELETE", "/v1/cluster/admit/:id", admin(a.deleteAdmit)},
		{"GET HEAD", "/v1/cluster/admitted", admin(a.getAdmitted)},
		{"GET HEAD", "/v1/cluster/join-tokens", admin(a.getJoinTokens)},
		{"POST", "/v1/cluster/join-tokens", admin(a.postJoinTokens)},
		{"DELETE", "/v1/cluster/join-tokens/:id", admin(a.deleteJoinToken)},
		{"GET HEAD", "/v1/snapshot", admin(a.getSnapshot)},

		// Envoy appends the original path.
		{"", pathCheck, a.tokens.Check},
		{"", pathCheck + "/*", a.tokens.Check},
	}
}

// healthRoutes returns the routes of the probes and, if metrics is set, of the metrics.
func (a *API) healthRoutes(metrics bool) []route {
	list := []route{
		{"GET HEAD", pathLive, a.getLive},
		{"GET HEAD", pathReady, a.getReady},
	}
	if metrics {
		list = append(list, route{"GET HEAD", pathMetrics, a.metricsPage()})
	}
	return list
}

// router returns an echo server with the routes, and the metrics of each route. Routes have neither
// middleware nor groups: echo's groups turn a 405 into a 404.
func (a *API) router(routes []route) (*echo.Echo, map[string]*routeMetrics) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = ipExtractor(a.cfg.TrustedProxies)
	e.Use(a.middleware)
	metrics := map[string]*routeMetrics{noRoute: a.metrics.forRoute(noRoute)}
	for _, r := range routes {
		metrics[r.path] = a.metrics.forRoute(r.path)
		if r.methods == "" {
			// RouteNotFound serves all methods of a path without other routes. Any registers only eleven.
			e.RouteNotFound(r.path, request.Adapt(r.handler))
			continue
		}
		for method := range strings.FieldsSeq(r.methods) {
			e.Add(method, r.path, request.Adapt(r.handler))
		}
	}
	return e, metrics
}
