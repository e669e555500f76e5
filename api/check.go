package api

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
)

const (
	pathCheck = "/v1/check"
	// maxBearer bounds a bearer token, and maxCheckHeader what is passed on of a record.
	maxBearer      = 16 << 10
	maxCheckHeader = 4 << 10
)

// registerCheck adds forward authentication, with and without the original path behind it (Envoy). A
// gateway repeats the user's method, which may be any; echo's Any is a list of eleven. A path without
// methods whose "not found" is the handler takes all.
func (a *API) registerCheck(e *echo.Echo) {
	e.RouteNotFound(pathCheck, a.check)
	e.RouteNotFound(pathCheck+"/*", a.check)
}

// check decides whether the bearer token of a user's request may be used: 200, 401 or 503, whatever the
// method; a body is not looked at. The caller is a resource server (Basic credentials in
// Revoked-Authorization) or comes from a network that is configured. Only access tokens pass, and none
// that is bound to a key (cnf): possession cannot be checked here, so such a token is not a bearer token.
func (a *API) check(c echo.Context) error {
	v, ok, err := a.gateway(c)
	if !ok {
		return err
	}
	h := c.Response().Header()
	token, found, ok := bearer(c.Request().Header["Authorization"])
	if !found {
		a.checked(c, "none")
		h.Set("WWW-Authenticate", "Bearer")
		return a.problemWith(c, http.StatusUnauthorized, "a bearer token is required", "")
	}
	if !ok {
		return a.refuseBearer(c, "malformed")
	}
	ctx, cancel := a.within(c)
	defer cancel()
	s, err := a.status(ctx, &v, revoked.DigestToken(token))
	if err != nil {
		a.checked(c, "error")
		// A gateway turns anything but 2xx, 401 and 403 into an error of its own; so 503, never 429.
		c.(*exchange).err = err
		return a.problemWith(c, http.StatusServiceUnavailable, unavailable.title, "")
	}
	rec := &s.Record
	sees := v.sees(rec) && rec.Token.Kind == revoked.AccessToken && len(rec.Token.CNF) == 0
	if result := resultOf(&s, sees); result != "active" {
		return a.refuseBearer(c, result)
	}
	a.checked(c, "active")
	c.(*exchange).quiet = true
	setSafe(h, "Revoked-Subject", rec.Grant.Subject)
	setSafe(h, "Revoked-Client-Id", rec.Grant.ClientID)
	setSafe(h, "Revoked-Scope", rec.Token.Scope)
	c.Response().WriteHeader(http.StatusOK)
	return nil
}

func (a *API) checked(c echo.Context, result string) {
	a.note(c, result)
	a.metrics.checks.WithLabelValues(result).Inc()
}

func (a *API) refuseBearer(c echo.Context, result string) error {
	a.checked(c, result)
	c.Response().Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	return a.problemWith(c, http.StatusUnauthorized, "the token is not active", "")
}

// gateway returns who asks. It has answered when ok is false.
func (a *API) gateway(c echo.Context) (v viewer, ok bool, err error) {
	r := c.Request()
	values := r.Header["Revoked-Authorization"]
	if len(values) == 0 {
		if from := peer(r); inside(a.cfg.CheckNetworks, from) {
			return viewer{name: "network " + from.String(), all: true}, true, nil
		}
	}
	if len(values) > 1 {
		return v, false, a.problemWith(c, http.StatusBadRequest, "malformed request", "more than one Revoked-Authorization header")
	}
	client, err := a.authenticateBasic(c, values)
	if err != nil {
		return v, false, a.refuseProblem(c, err)
	}
	c.(*exchange).client = client
	if !client.Has(revoked.RoleResourceServer) {
		a.note(c, "forbidden")
		return v, false, a.problemWith(c, http.StatusForbidden, "forbidden", "the caller is not a resource server")
	}
	v = viewerOf(client)
	v.clientID = "" // a resource server asks as an audience, not as an owner
	return v, true, nil
}

// bearer returns the token of the values of an Authorization header (RFC 6750 section 2.1). found is
// false when there is none of that scheme; ok is false when it is malformed or there are several.
func bearer(values []string) (token string, found, ok bool) {
	if len(values) == 0 {
		return "", false, false
	}
	if len(values) > 1 {
		return "", true, false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false, false
	}
	token = strings.Trim(token, " \t")
	if token == "" || len(token) > maxBearer {
		return "", true, false
	}
	for i := 0; i < len(token); i++ {
		if token[i] <= 0x20 || token[i] >= 0x7f {
			return "", true, false
		}
	}
	return token, true, true
}

// setSafe sets a header that a gateway may pass on, unless the value is empty, too long or holds
// anything but printable ASCII: half a name would be another name.
func setSafe(h http.Header, name, value string) {
	if value == "" || len(value) > maxCheckHeader {
		return
	}
	for i := 0; i < len(value); i++ {
		if value[i] < 0x20 || value[i] >= 0x7f {
			return
		}
	}
	h.Set(name, value)
}
