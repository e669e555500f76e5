package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

const (
	challenge   = `Basic realm="revoked"`
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
	// retryAfter is what 429 and 503 advise, in seconds, where nothing better is known.
	retryAfter = "1"
)

// problemBody is an RFC 9457 problem document.
type problemBody struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// problem answers with the RFC 9457 document of err, by the table in errors.go. The text of an error
// that is the server's own trouble goes to the log only.
func (a *API) problem(c echo.Context, err error) error {
	x := a.answerFor(err)
	detail := ""
	if !x.opaque {
		detail = err.Error()
	}
	if ex, ok := c.(*exchange); ok {
		ex.outcome, ex.err = x.outcome, err
	}
	return a.problemWith(c, x.status, x.title, detail)
}

// problemWith answers with an RFC 9457 document. It adds WWW-Authenticate to a 401 and Retry-After to
// a 429 or 503 unless they are set already.
func (a *API) problemWith(c echo.Context, status int, title, detail string) error {
	body, err := json.Marshal(problemBody{Type: "about:blank", Title: title, Status: status, Detail: strings.ToValidUTF8(detail, "?")})
	if err != nil {
		return err
	}
	h := c.Response().Header()
	statusHeaders(h, status)
	return write(c, status, typeProblem, body)
}

// oauthError answers with the error object of RFC 6749 section 5.2. The description must be a
// constant of this package: it has only the characters %x20-21 %x23-5B %x5D-7E.
func (a *API) oauthError(c echo.Context, status int, code, description string) error {
	b := appendOAuthError(make([]byte, 0, 96), code, description)
	statusHeaders(c.Response().Header(), status)
	return write(c, status, typeJSON, b)
}

func appendOAuthError(b []byte, code, description string) []byte {
	b = append(b, `{"error":"`...)
	b = append(b, code...)
	b = append(b, `","error_description":"`...)
	b = append(b, description...)
	return append(b, `"}`...)
}

// oauthFail answers an OAuth request with what err means.
func (a *API) oauthFail(c echo.Context, err error) error {
	x := a.answerFor(err)
	if x.status == http.StatusUnprocessableEntity || x.status == http.StatusConflict || x.status == http.StatusNotFound {
		// These cannot come of a revocation or an introspection; so it is not known what happened.
		x = unavailable
	}
	if ex, ok := c.(*exchange); ok {
		ex.outcome, ex.err = x.outcome, err
	}
	return a.oauthError(c, x.status, x.code, x.title)
}

// statusHeaders sets the headers that a status obliges to.
func statusHeaders(h http.Header, status int) {
	switch status {
	case http.StatusUnauthorized:
		if h.Get("WWW-Authenticate") == "" {
			h["Www-Authenticate"] = []string{challenge}
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h["Retry-After"] = []string{retryAfter}
		}
	}
}

// write sends a whole body. HEAD gets the headers only (net/http drops the body).
func write(c echo.Context, status int, contentType string, body []byte) error {
	value := jsonType
	if contentType != typeJSON {
		value = []string{contentType}
	}
	c.Response().Header()["Content-Type"] = value
	c.Response().WriteHeader(status)
	_, err := c.Response().Write(body)
	return err
}

// fail turns an error that a handler or echo's router returned into an answer of the path's own
// shape. It does nothing when an answer has been begun.
func (a *API) fail(ex *exchange, err error) {
	if ex.Response().Committed {
		ex.err = err
		return
	}
	var he *echo.HTTPError
	if !errors.As(err, &he) {
		if a.isOAuth(ex.Request().URL.Path) {
			_ = a.oauthFail(ex, err)
			return
		}
		_ = a.problem(ex, err)
		return
	}
	if he.Code == http.StatusMethodNotAllowed {
		if allow := a.allowed(ex.Request().URL.Path); allow != "" {
			ex.Response().Header().Set("Allow", allow)
		}
	}
	ex.outcome = strings.ReplaceAll(strings.ToLower(http.StatusText(he.Code)), " ", "_")
	if a.isOAuth(ex.Request().URL.Path) {
		code := codeInvalidRequest
		if he.Code >= http.StatusInternalServerError {
			code = codeServerError
		}
		_ = a.oauthError(ex, he.Code, code, strings.ToLower(http.StatusText(he.Code)))
		return
	}
	_ = a.problemWith(ex, he.Code, http.StatusText(he.Code), "")
}
