package api

import (
	"net/http"
	"slices"
)

// cors adds the headers of the Fetch standard for an origin that is configured, to errors too, and
// answers preflights; it reports whether it did. It comes before everything else and is confined to
// the OAuth endpoints and the metadata. Credentials mode is never allowed.
func (a *API) cors(ex *exchange) (answered bool) {
	r := ex.Request()
	methods := ""
	switch {
	case a.isMetadata(r.URL.Path):
		methods = "GET, HEAD"
	case isEndpoint(r.URL.Path):
		methods = a.endpointMethods()
	default:
		return false
	}
	h := ex.Response().Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	any := slices.Contains(a.cfg.CORSOrigins, "*")
	if any {
		h.Set("Access-Control-Allow-Origin", "*")
	} else if slices.Contains(a.cfg.CORSOrigins, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
	} else {
		return false
	}
	h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if a.cfg.RequireHTTPS && !a.secure(r) {
		return false
	}
	h.Add("Vary", "Access-Control-Request-Method")
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", "authorization, content-type")
	h.Set("Access-Control-Max-Age", "600")
	h.Set("Allow", methods)
	ex.outcome, ex.quiet = "preflight", true
	ex.Response().WriteHeader(http.StatusNoContent)
	return true
}
