package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

// errUnauthenticated is returned when a caller presented nothing that verifies. It says no more, on
// purpose: an unknown client and a wrong secret are answered alike.
var errUnauthenticated = errors.New("client authentication failed")

// A throttledError is returned when a caller that failed is over its budget.
type throttledError struct{ after time.Duration }

func (e *throttledError) Error() string { return "too many failures" }

// Is makes a throttledError a kind of quota.
func (e *throttledError) Is(target error) bool { return target == revoked.ErrQuota }

// retrySeconds returns a Retry-After value, at least 1.
func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// authenticateBasic authenticates by the values of an Authorization header, at most one of them. The
// client that is returned is confidential, enabled and may use HTTP Basic.
func (a *API) authenticateBasic(c echo.Context, values []string) (*revoked.Client, error) {
	if len(values) == 0 {
		a.metrics.authFailures.WithLabelValues("none").Inc()
		return nil, errUnauthenticated
	}
	readings := basicReadings(values[0])
	return a.verify(c, readings, revoked.AuthBasic)
}

// basicReadings returns the readings of an Authorization header, none for another scheme.
func basicReadings(header string) []credential {
	scheme, param, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	return decodeBasic(strings.Trim(param, " \t"))
}

// verify authenticates by any of the readings. Secrets are verified first and failures throttled
// after: a right secret passes however many others guessed. No readings: malformed, which fails.
func (a *API) verify(c echo.Context, readings []credential, method string) (*revoked.Client, error) {
	ctx := c.Request().Context()
	was := make([]*revoked.Client, len(readings))
	found, err := a.verifyAny(ctx, readings, method, was)
	if err == nil && found == nil && a.newer(ctx, readings, was) {
		found, err = a.verifyAny(ctx, readings, method, was)
	}
	if err != nil || found != nil {
		return found, err
	}
	if a.unsure(readings) {
		return nil, fmt.Errorf("%w: no client of that name, yet", revoked.ErrNotCurrent)
	}
	a.metrics.authFailures.WithLabelValues("failed").Inc()
	var wait time.Duration
	for i := range readings { // those of an id stand together, and cost it one failure
		if i == 0 || readings[i].id != readings[i-1].id {
			wait = max(wait, a.failures.spend(readings[i].id, a.cfg.Now()))
		}
	}
	if wait > 0 {
		a.metrics.throttled.WithLabelValues("authentication").Inc()
		return nil, &throttledError{wait}
	}
	return nil, errUnauthenticated
}

// verifyAny verifies all readings, so that it takes as long whichever is right, and sets was to the records that
// it went by.
func (a *API) verifyAny(ctx context.Context, readings []credential, method string, was []*revoked.Client) (found *revoked.Client, err error) {
	for i := range readings {
		was[i], _ = a.cfg.Backend.Client(readings[i].id)
		client, err := a.verifyOne(ctx, was[i], &readings[i], method)
		if err != nil {
			return nil, err
		}
		if client != nil && found == nil {
			found = client
		}
	}
	return found, nil
}

// catchUp is how long a caller waits at most for this node to catch up, where it has no lease: bad
// credentials are told also when nothing can be proven.
const catchUp = time.Second

// current has this node catch up, if it can in that time, with what was acknowledged before.
func (a *API) current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	return a.cfg.Backend.Current(ctx)
}

// newer reports whether this node knows more of the clients in question than it went by: one may have been made
// or changed elsewhere a moment ago. Who has failed too often is not worth the call.
func (a *API) newer(ctx context.Context, readings []credential, was []*revoked.Client) bool {
	now := a.cfg.Now()
	for i := range readings {
		if a.failures.exhausted(readings[i].id, now) {
			return false
		}
	}
	if len(readings) == 0 || a.current(ctx) != nil {
		return false
	}
	for i := range readings {
		if client, _ := a.cfg.Backend.Client(readings[i].id); client != was[i] {
			return true
		}
	}
	return false
}

// unsure reports whether an unknown client may be one that this node has not heard of since its start.
func (a *API) unsure(readings []credential) bool {
	if len(readings) == 0 || a.cfg.Backend.ClientsCurrent() {
		return false
	}
	for i := range readings {
		if _, known := a.cfg.Backend.Client(readings[i].id); known {
			return false
		}
	}
	return true
}

// verifyOne returns the client if the credential proves that it is the caller, or nil. It does the same work for
// a client that does not exist.
func (a *API) verifyOne(ctx context.Context, client *revoked.Client, cr *credential, method string) (*revoked.Client, error) {
	if client == nil {
		a.secrets.decoy(cr.secret)
		return nil, nil
	}
	now := a.cfg.Now()
	suspect := a.failures.exhausted(cr.id, now)
	right, err := a.secrets.verify(ctx, client, cr.secret, now, suspect)
	if err != nil {
		if suspect { // waiting for a guess is not worth more than this
			return nil, &throttledError{time.Second}
		}
		return nil, err
	}
	if !right || client.Disabled || client.Type != revoked.Confidential || !mayUse(client, method) {
		return nil, nil
	}
	return client, nil
}

// mayUse reports whether the client may authenticate by method. A record that names no methods
// allows all of them.
func mayUse(c *revoked.Client, method string) bool {
	if len(c.AuthMethods) == 0 {
		return true
	}
	for _, m := range c.AuthMethods {
		if m == method {
			return true
		}
	}
	return false
}

// refuseProblem answers a failed authentication under /v1.
func (a *API) refuseProblem(c echo.Context, err error) error {
	status, outcome := a.refusal(c, err)
	if status == http.StatusServiceUnavailable {
		return a.problem(c, err)
	}
	a.note(c, outcome)
	if status == http.StatusTooManyRequests {
		return a.problemWith(c, status, "too many failures", "")
	}
	return a.problemWith(c, status, "client authentication failed", "")
}

// refuseOAuth answers a failed authentication at an OAuth endpoint.
func (a *API) refuseOAuth(c echo.Context, err error) error {
	status, outcome := a.refusal(c, err)
	if status == http.StatusServiceUnavailable {
		return a.oauthFail(c, err)
	}
	a.note(c, outcome)
	if status == http.StatusTooManyRequests {
		return a.oauthError(c, status, codeUnavailable, "too many failures, retry later")
	}
	return a.oauthError(c, status, codeInvalidClient, "client authentication failed")
}

// refusal returns the status and outcome of a failed authentication; it sets Retry-After on a 429.
func (a *API) refusal(c echo.Context, err error) (int, string) {
	var t *throttledError
	switch {
	case errors.As(err, &t):
		c.Response().Header().Set("Retry-After", retrySeconds(t.after))
		return http.StatusTooManyRequests, "throttled"
	case errors.Is(err, errUnauthenticated):
		return http.StatusUnauthorized, "unauthenticated"
	}
	return http.StatusServiceUnavailable, "unavailable"
}
