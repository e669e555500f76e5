package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/access"
	"revoked/api/console"
	"revoked/api/debug"
	"revoked/api/profile"
	"revoked/api/recorder"
	"revoked/api/request"
	"revoked/api/stream"
	"revoked/api/tokens"
)

// Paths of the two OAuth endpoints. Each endpoint has its own path and the path that the webMethods
// service uses for it.
const (
	pathRevoke           = "/oauth2/revoke"
	pathInvokeRevoke     = "/invoke/pub.oauth/revokeToken"
	pathIntrospect       = "/oauth2/introspect"
	pathInvokeIntrospect = "/invoke/pub.oauth/introspectToken"
)

// pathCheck is the path of forward authentication. Every path below it is served too: some gateways
// append the path of the user's request.
const pathCheck = "/v1/check"

// pathMetadata is the path of the metadata document. RFC 8414 section 3.1 appends the path of the
// issuer.
const pathMetadata = "/.well-known/oauth-authorization-server"

// Paths of the probes.
const (
	pathLive    = "/livez"
	pathReady   = "/readyz"
	pathMetrics = "/metrics"
)

// allowedMethods returns the Allow header of the endpoints that check methods themselves, "" for
// other paths.
func (a *API) allowedMethods(path string) string {
	switch path {
	case pathRevoke, pathInvokeRevoke, pathIntrospect, pathInvokeIntrospect:
		return a.tokens.Methods()
	case pathMetadata, pathMetadata + a.issuerPath:
		return "GET, HEAD"
	}
	return ""
}

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
	doc, err := metadataDocument(iss, cfg.ClientCAs != nil && cfg.ClientCAs() != nil, cfg.MetadataExtra)
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
		Audience: iss.text, ClientCAs: cfg.ClientCAs,
		Backend: cfg.Backend, Now: cfg.Now, FailuresPerMinute: cfg.AuthFailuresPerMinute, MaxWait: cfg.RequestTimeout,
		MaxRequests: cfg.MaxRequestsPerClient, TrustedProxies: cfg.TrustedProxies, Failures: m.authFailures,
		Throttled: m.throttled, Tracer: cfg.Tracer,
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
		cfg: cfg, metrics: m, streams: streams, ids: request.NewIDs(), leaderless: &sparseLines{},
		recorder: recorder.New(recorder.Config{Note: cfg.Backend.Note, Now: cfg.Now, Log: cfg.Log, Lost: m.auditLost}),
		metadata: doc, issuerPath: iss.path, access: control, tokens: presented,
		debug: debug.New(debug.Config{Log: cfg.RecentLog, Config: cfg.EffectiveConfig, Profiles: cfg.Profiles}),
	}
	routes := slices.Concat(a.oauthRoutes(), a.adminRoutes(), a.healthRoutes(cfg.MetricsOnAPI))
	if cfg.Console {
		routes = append(routes, a.consoleRoutes()...)
	}
	a.echo, a.routes = a.router(routes)
	return a, nil
}

// consoleRoutes returns the routes of the console. The console calls the other routes.
func (a *API) consoleRoutes() []route {
	roles := map[string][]revoked.Role{
		// Other clients may revoke only their own tokens, and users of the console do not have
		// tokens.
		"POST " + pathRevoke: admins,
		console.CutOff:       cutoffMakers,
	}
	for _, r := range a.adminRoutes() {
		for method := range strings.FieldsSeq(r.methods) {
			roles[method+" "+r.path] = r.roles
		}
	}
	a.console = console.New(console.Config{
		NodeID: a.cfg.NodeID, Access: a.access, Secure: a.secure, Now: a.cfg.Now,
		API:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.echo.ServeHTTP(w, r) }),
		Roles: func(call string) []revoked.Role { return roles[call] },
	})
	return []route{{path: console.Root, handler: a.console.Serve}, {path: console.Root + "/*", handler: a.console.Serve}}
}

// Limits of concurrent snapshot downloads. Each one keeps the files of a checkpoint on disk.
const (
	maxSnapshots       = 4
	maxClientSnapshots = 2
)

// newStreams returns the spool budget of cfg, and the slots of feeds, bulk registrations and
// snapshots. The limits of snapshots are constants.
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
// package serve, which limits connections and slow callers.
func (a *API) Handler() http.Handler { return a.echo }

// MetricsHandler returns a handler for a separate listener. It serves /livez, /readyz and /metrics,
// and with Profiles also /debug/pprof/. It accepts plain HTTP even with RequireHTTPS.
func (a *API) MetricsHandler() http.Handler {
	b := *a
	b.cfg.RequireHTTPS = false
	routes := b.healthRoutes(true)
	if b.cfg.Profiles {
		routes = append(routes, route{"GET HEAD", "/debug/pprof/:id", profile.Get, admins})
	}
	b.echo, b.routes = b.router(routes)
	return b.echo
}

// A route is a path with the handler for some methods. A caller needs one of the roles.
type route struct {
	methods string // HTTP methods, separated by spaces; empty: all, and the handler checks the method
	path    string
	handler request.Handler
	roles   []revoked.Role // nil: the handler checks the caller, or everyone may call
}

// The roles that may call a route below /v1. Apply requires the same roles for the operations
// (fsm/rules). The leader requires them for membership changes (node/roster).
var (
	admins     = []revoked.Role{revoked.RoleAdmin}
	issuers    = []revoked.Role{revoked.RoleAdmin, revoked.RoleIssuer}
	operators  = []revoked.Role{revoked.RoleAdmin, revoked.RoleOperator}
	viewers    = []revoked.Role{revoked.RoleAdmin, revoked.RoleOperator, revoked.RoleViewer}
	explainers = []revoked.Role{revoked.RoleAdmin, revoked.RoleViewer}
	readers    = []revoked.Role{revoked.RoleAdmin, revoked.RoleAuditor, revoked.RoleResourceServer}
	auditors   = []revoked.Role{revoked.RoleAdmin, revoked.RoleAuditor}
	// cutoffMakers may create a cut-off. The route of cut-offs also serves issuers, which revoke
	// single JWTs by jti.
	cutoffMakers = admins
)

// oauthRoutes returns the routes of the OAuth endpoints. Their handlers check the method, in the
// order of the contract.
func (a *API) oauthRoutes() []route {
	list := []route{
		{path: pathRevoke, handler: a.tokens.Revoke},
		{path: pathInvokeRevoke, handler: a.tokens.Revoke},
		{path: pathIntrospect, handler: a.tokens.Introspect},
		{path: pathInvokeIntrospect, handler: a.tokens.Introspect},
		{path: pathMetadata, handler: a.getMetadata},
		// The caller of a check is a gateway with credentials of its own. Envoy appends the original
		// path.
		{path: pathCheck, handler: a.tokens.Check},
		{path: pathCheck + "/*", handler: a.tokens.Check},
	}
	if a.issuerPath != "" {
		list = append(list, route{path: pathMetadata + a.issuerPath, handler: a.getMetadata})
	}
	return list
}

// adminRoutes returns the routes of the admin and issuer API (/v1) with the roles that may call
// them. This is the only table of roles. The checks and the texts of the refusals come from it. A
// GET route also serves HEAD (RFC 9110 section 9.1).
func (a *API) adminRoutes() []route {
	return []route{
		{"POST", "/v1/grants", a.postGrants, issuers},
		{"GET HEAD", "/v1/grants", a.getGrants, admins},
		{"GET HEAD", "/v1/grants/:id", a.getGrant, issuers},
		{"DELETE", "/v1/grants/:id", a.deleteGrant, issuers},

		{"POST", "/v1/explain", a.tokens.Explain, explainers},
		{"GET HEAD", "/v1/audit/token", a.tokens.AsOf, auditors},
		{"POST", "/v1/revocations", a.postRevocations, issuers},
		{"GET HEAD", "/v1/revocations", a.getRevocations, readers},
		{"GET HEAD", "/v1/audit", a.getAudit, auditors},

		{"GET HEAD", "/v1/clients", a.getClients, admins},
		{"POST", "/v1/clients", a.postClients, admins},
		{"GET HEAD", "/v1/clients/:id", a.getClient, admins},
		{"PATCH", "/v1/clients/:id", a.patchClient, admins},
		{"DELETE", "/v1/clients/:id", a.deleteClient, admins},
		{"POST", "/v1/clients/:id/secret", a.postSecret, admins},

		{"GET HEAD", "/v1/issuers", a.getIssuers, admins},
		{"POST", "/v1/issuers", a.postIssuers, admins},
		{"GET HEAD", "/v1/issuers/:id", a.getIssuer, admins},
		{"PATCH", "/v1/issuers/:id", a.patchIssuer, admins},
		{"DELETE", "/v1/issuers/:id", a.deleteIssuer, admins},
		{"DELETE", "/v1/issuers/:id/keys/:thumbprint", a.deleteIssuerKey, admins},
		{"POST", "/v1/issuers/:id/check", a.postIssuerCheck, admins},
		{"POST", "/v1/issuers/:id/refresh", a.postIssuerRefresh, admins},

		{"GET HEAD", "/v1/settings", a.getSettings, viewers},
		{"PATCH", "/v1/settings", a.patchSettings, operators},

		{"GET HEAD", "/v1/members", a.getMembers, viewers},
		{"GET HEAD", "/v1/status", a.getStatus, viewers},
		{"POST", "/v1/cluster/join", a.postJoin, operators},
		{"POST", "/v1/cluster/leave", a.postLeave, operators},
		{"POST", "/v1/cluster/remove", a.postRemove, operators},
		{"POST", "/v1/cluster/transfer-leader", a.postTransferLeader, operators},
		{"POST", "/v1/cluster/promote", a.postSuffrage(a.cfg.Backend.Promote), operators},
		{"POST", "/v1/cluster/demote", a.postSuffrage(a.cfg.Backend.Demote), operators},
		{"POST", "/v1/cluster/admit", a.postAdmit, operators},
		{"DELETE", "/v1/cluster/admit/:id", a.deleteAdmit, operators},
		{"GET HEAD", "/v1/cluster/admitted", a.getAdmitted, operators},
		{"GET HEAD", "/v1/cluster/join-tokens", a.getJoinTokens, operators},
		{"POST", "/v1/cluster/join-tokens", a.postJoinTokens, operators},
		{"DELETE", "/v1/cluster/join-tokens/:id", a.deleteJoinToken, operators},
		{"GET HEAD", "/v1/snapshot", a.getSnapshot, operators},

		// Lines of the log contain client ids.
		{"GET HEAD", "/v1/debug/log", a.debug.GetLog, admins},
		{"GET HEAD", "/v1/debug/config", a.debug.GetConfig, admins},
		{"GET HEAD", "/v1/debug/metrics", a.showMetrics(), admins},
		{"GET HEAD", "/v1/debug/goroutines", a.debug.GetGoroutines, admins},
		{"GET HEAD", "/v1/debug/heap", a.debug.GetHeap, admins},

		{"GET HEAD", "/v1/openapi.json", getDescription, nil},
	}
}

// healthRoutes returns the routes of the probes and, if metrics is set, of the metrics.
func (a *API) healthRoutes(metrics bool) []route {
	list := []route{
		{methods: "GET HEAD", path: pathLive, handler: a.getLive},
		{methods: "GET HEAD", path: pathReady, handler: a.getReady},
	}
	if metrics {
		list = append(list, route{methods: "GET HEAD", path: pathMetrics, handler: a.metricsPage()})
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
		if r.roles != nil {
			r.handler = a.access.Require(r.handler, r.roles...)
		}
		if r.methods == "" {
			// RouteNotFound serves all methods of a path without other routes. Any registers only
			// eleven.
			e.RouteNotFound(r.path, request.Adapt(r.handler))
			continue
		}
		for method := range strings.FieldsSeq(r.methods) {
			e.Add(method, r.path, request.Adapt(r.handler))
		}
	}
	return e, metrics
}
