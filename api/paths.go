package api

// The two OAuth endpoints, each under its own name and that of the webMethods service.
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
