package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/openapi"
	"revoked/api/request"
)

// An issuer is a parsed issuer identifier (RFC 8414 section 2).
type issuer struct {
	text   string // identifier exactly as configured
	origin string // scheme and authority of the endpoints
	path   string // path without a trailing slash; empty for most issuers
}

// parseIssuer parses an issuer identifier. It accepts plain http unless HTTPS is required.
func parseIssuer(s string, requireHTTPS bool) (issuer, error) {
	bad := func(problem string) (issuer, error) {
		return issuer{}, fmt.Errorf("%w: issuer: %s", revoked.ErrInvalid, problem)
	}
	if s == "" {
		return bad("missing")
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("not a URL")
	}
	switch {
	case u.Scheme != "https" && (requireHTTPS || u.Scheme != "http"):
		return bad("scheme must be https")
	case u.Host == "" || u.User != nil:
		return bad("must have a host, and no user information")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return bad("must not have a query or a fragment")
	}
	return issuer{text: s, origin: u.Scheme + "://" + u.Host, path: strings.TrimRight(u.EscapedPath(), "/")}, nil
}

// MetadataMembers returns the members of the metadata document that Config.MetadataExtra cannot
// replace.
func MetadataMembers() []string {
	return []string{
		"issuer", "revocation_endpoint", "revocation_endpoint_auth_methods_supported",
		"introspection_endpoint", "introspection_endpoint_auth_methods_supported",
		"revocation_endpoint_auth_signing_alg_values_supported",
		"introspection_endpoint_auth_signing_alg_values_supported",
	}
}

// metadataDocument returns the RFC 8414 document: extra, overlaid with the members of this package.
// Members are sorted, so nodes with the same configuration send the same bytes. Empty arrays are
// omitted (section 3.2). With clientCAs set, the document has the method
// tls_client_auth, else self_signed_tls_client_auth (RFC 8705 section 2).
func metadataDocument(iss issuer, clientCAs bool, extra map[string]any) ([]byte, error) {
	doc := maps.Clone(extra)
	if doc == nil {
		doc = make(map[string]any)
	}
	for k, v := range doc {
		rv := reflect.ValueOf(v)
		if v == nil || (rv.Kind() == reflect.Slice || rv.Kind() == reflect.Array) && rv.Len() == 0 {
			delete(doc, k)
		}
	}
	methods := []string{revoked.AuthBasic, revoked.AuthPost, revoked.AuthPrivateKey, revoked.AuthSelfSigned}
	if clientCAs {
		methods[3] = revoked.AuthTLS
	}
	algorithms := revoked.SignatureAlgorithms()
	doc["revocation_endpoint_auth_signing_alg_values_supported"] = algorithms
	doc["introspection_endpoint_auth_signing_alg_values_supported"] = algorithms
	doc["issuer"] = iss.text
	doc["revocation_endpoint"] = iss.origin + pathRevoke
	doc["revocation_endpoint_auth_methods_supported"] = methods
	doc["introspection_endpoint"] = iss.origin + pathIntrospect
	doc["introspection_endpoint_auth_methods_supported"] = methods
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: metadata_extra: %v", revoked.ErrInvalid, err)
	}
	return b, nil
}

// getMetadata serves the document, which New has encoded. It does not query the node, so clients
// can discover the endpoints even without a cluster.
func (a *API) getMetadata(r *request.Request) error {
	switch r.Request().Method {
	case http.MethodGet, http.MethodHead:
		r.Quiet = true
		return r.Send(http.StatusOK, request.TypeJSON, a.metadata)
	}
	r.Response().Header().Set("Allow", a.allowedMethods(r.Request().URL.Path))
	return echo.ErrMethodNotAllowed
}

// getDescription serves GET /v1/openapi.json. It is public, like the metadata. It contains nothing
// about this cluster, and tools read it before they have credentials.
func getDescription(r *request.Request) error {
	r.Quiet = true
	return r.Send(http.StatusOK, request.TypeJSON, openapi.Document())
}
