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
)

const wellKnown = "/.well-known/oauth-authorization-server"

// An issuer is a parsed issuer identifier (RFC 8414 section 2).
type issuer struct {
	text   string // exactly as configured
	origin string // scheme and authority: where the endpoints are
	path   string // without a trailing slash; empty for most
}

// parseIssuer checks an issuer identifier. Plain http is let through where HTTPS is not required.
func parseIssuer(s string, requireHTTPS bool) (issuer, error) {
	bad := func(why string) (issuer, error) {
		return issuer{}, fmt.Errorf("%w: issuer: %s", revoked.ErrInvalid, why)
	}
	if s == "" {
		return bad("is missing")
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("is not a URL")
	}
	switch {
	case u.Scheme != "https" && (requireHTTPS || u.Scheme != "http"):
		return bad("scheme must be https")
	case u.Host == "" || u.User != nil:
		return bad("needs a host and no user")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return bad("has a query or a fragment")
	}
	return issuer{text: s, origin: u.Scheme + "://" + u.Host, path: strings.TrimRight(u.EscapedPath(), "/")}, nil
}

// MetadataMembers are the members of the metadata document that this package makes itself, whatever
// Config.MetadataExtra says.
func MetadataMembers() []string {
	return []string{
		"issuer", "revocation_endpoint", "revocation_endpoint_auth_methods_supported",
		"introspection_endpoint", "introspection_endpoint_auth_methods_supported",
	}
}

// metadataDocument returns the RFC 8414 document: extra, and over it what this package knows. Members
// are sorted, so every node with the same configuration has the same bytes. Empty arrays are left out
// (section 3.2).
func metadataDocument(iss issuer, extra map[string]any) ([]byte, error) {
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
	methods := []string{revoked.AuthBasic, revoked.AuthPost}
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

// isMetadata reports whether path is where the metadata is: RFC 8414 section 3.1 puts the issuer's
// path behind the well-known one.
func (a *API) isMetadata(path string) bool {
	return path == wellKnown || a.issuer.path != "" && path == wellKnown+a.issuer.path
}

func (a *API) serveMetadata(c echo.Context) error {
	ex := c.(*exchange)
	switch c.Request().Method {
	case http.MethodGet, http.MethodHead:
		ex.quiet = true
		return write(c, http.StatusOK, typeJSON, a.metadata)
	}
	return echo.ErrMethodNotAllowed
}
