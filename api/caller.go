package api

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"revoked"
)

// An exchange is one request and its answer: echo's context with what the end of the request needs
// to know. It is made by [API.around] and lives as long as the request.
type exchange struct {
	echo.Context
	client  *revoked.Client // who authenticated; nil: nobody
	outcome string          // one word for metrics and the log
	err     error           // for the log only
	quiet   bool            // a success is logged at debug level
}

// caller returns the client that authenticated, nil when nobody did. Its record must not be changed.
func (a *API) caller(c echo.Context) *revoked.Client {
	if ex, ok := c.(*exchange); ok {
		return ex.client
	}
	return nil
}

// note records the outcome of the request, one word, for metrics and the log line.
func (a *API) note(c echo.Context, outcome string) {
	if ex, ok := c.(*exchange); ok {
		ex.outcome = outcome
	}
}

// requireRole authenticates the caller by HTTP Basic and lets it pass when it has one of the roles;
// without roles every confidential client passes. It answers 401, 403, 429 or 503 otherwise, and 400
// to a query that is malformed. Use it on routes, never on a group: echo would turn 405 into 404.
func (a *API) requireRole(roles ...revoked.Role) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			values := c.Request().Header["Authorization"]
			if len(values) > 1 {
				return a.problemWith(c, http.StatusBadRequest, "malformed request", "more than one Authorization header")
			}
			// Whatever is asked for here, the caller is who it is now, and so are the clients and settings that it
			// sees. Where nothing can be proven, this node's copy has to do: what needs a proof asks for one.
			_ = a.current(c.Request().Context())
			client, err := a.authenticateBasic(c, values)
			if err != nil {
				return a.refuseProblem(c, err)
			}
			c.(*exchange).client = client
			if !hasAny(client, roles) {
				a.note(c, "forbidden")
				return a.problemWith(c, http.StatusForbidden, "forbidden", "the caller lacks the role for this")
			}
			if err := checkQuery(c.Request().URL.RawQuery); err != nil {
				return a.problem(c, err)
			}
			return next(c)
		}
	}
}

func hasAny(c *revoked.Client, roles []revoked.Role) bool {
	if len(roles) == 0 {
		return true
	}
	for _, r := range roles {
		if c.Has(r) {
			return true
		}
	}
	return false
}

// within returns the request's context, ended after the configured request timeout.
func (a *API) within(c echo.Context) (context.Context, context.CancelFunc) {
	d := &deadline{Context: c.Request().Context(), after: a.cfg.RequestTimeout}
	return d, d.stop
}
