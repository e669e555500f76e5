package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const typeText = "text/plain; charset=utf-8"

func (a *API) registerHealth(e *echo.Echo, metrics bool) {
	methods := []string{http.MethodGet, http.MethodHead}
	e.Match(methods, "/livez", a.live)
	e.Match(methods, "/readyz", a.ready)
	if !metrics {
		return
	}
	page := promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	e.Match(methods, "/metrics", func(c echo.Context) error {
		c.(*exchange).quiet = true
		page.ServeHTTP(c.Response(), c.Request())
		return nil
	})
}

// live answers 200 as long as the process serves requests.
func (a *API) live(c echo.Context) error {
	c.(*exchange).quiet = true
	return write(c, http.StatusOK, typeText, []byte("ok\n"))
}

// ready answers 200 when the node can answer introspections with the promise kept, with ?revoke when
// a leader is known too, else 503. ?verbose lists the checks.
func (a *API) ready(c echo.Context) error {
	c.(*exchange).quiet = true
	ctx, cancel := a.within(c)
	defer cancel()
	state := a.cfg.Backend.Readiness(ctx)
	query := c.Request().URL.Query()
	ok := state.CanAnswer
	if query.Has("revoke") {
		ok = ok && state.CanRevoke
	}
	var b strings.Builder
	if query.Has("verbose") {
		for _, check := range state.Checks {
			mark, word := "[+]", " ok"
			if !check.OK {
				mark, word = "[-]", " failed"
			}
			b.WriteString(mark + check.Name + word)
			if check.Detail != "" {
				b.WriteString(": " + check.Detail)
			}
			b.WriteByte('\n')
		}
		for _, reason := range state.Reasons {
			b.WriteString(reason + "\n")
		}
	}
	if ok {
		b.WriteString("ready\n")
		return write(c, http.StatusOK, typeText, []byte(b.String()))
	}
	a.note(c, "not_ready")
	b.WriteString("not ready\n")
	statusHeaders(c.Response().Header(), http.StatusServiceUnavailable)
	return write(c, http.StatusServiceUnavailable, typeText, []byte(b.String()))
}
