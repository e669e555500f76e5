package api

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
)

// The two endpoints, each under its own name and that of the webMethods service.
const (
	pathRevoke           = "/oauth2/revoke"
	pathInvokeRevoke     = "/invoke/pub.oauth/revokeToken"
	pathIntrospect       = "/oauth2/introspect"
	pathInvokeIntrospect = "/invoke/pub.oauth/introspectToken"
)

// maxForm bounds the body of an OAuth request, and a query that carries its parameters.
const maxForm = 16 << 10

func (a *API) registerOAuth(e *echo.Echo) {
	e.Any(pathRevoke, a.revoke)
	e.Any(pathInvokeRevoke, a.revoke)
	e.Any(pathIntrospect, a.introspect)
	e.Any(pathInvokeIntrospect, a.introspect)
	e.Any(wellKnown, a.serveMetadata)
	if a.issuer.path != "" {
		e.Any(wellKnown+a.issuer.path, a.serveMetadata)
	}
}

func isEndpoint(path string) bool {
	switch path {
	case pathRevoke, pathInvokeRevoke, pathIntrospect, pathInvokeIntrospect:
		return true
	}
	return false
}

// isOAuth reports whether errors at path have the shape of RFC 6749 section 5.2.
func (a *API) isOAuth(path string) bool {
	return strings.HasPrefix(path, "/oauth2/") || strings.HasPrefix(path, "/invoke/") || strings.HasPrefix(path, "/.well-known/")
}

func (a *API) endpointMethods() string {
	if a.cfg.RequirePost {
		return "POST"
	}
	return "GET, POST"
}

// allowed returns the Allow header of a path whose methods are decided here, else nothing.
func (a *API) allowed(path string) string {
	switch {
	case isEndpoint(path):
		return a.endpointMethods()
	case a.isMetadata(path):
		return "GET, HEAD"
	}
	return ""
}

// An oauthRequest is a request to one of the two endpoints. Its form lies in buf.
type oauthRequest struct {
	form
	buf   []byte
	query form
	out   []byte // the answer
}

// acquire returns an empty request from the pool.
func (a *API) acquire() *oauthRequest {
	if q, ok := a.pool.Get().(*oauthRequest); ok {
		return q
	}
	return &oauthRequest{buf: make([]byte, 0, maxForm+1)}
}

// release clears what was read, the token among it, and gives the request back.
func (a *API) release(q *oauthRequest) {
	clear(q.buf)
	*q = oauthRequest{buf: q.buf[:0], out: q.out[:0]}
	a.pool.Put(q)
}

// refused answers a request that is malformed whatever its caller is; the error is the write's.
func (a *API) refused(c echo.Context, status int, outcome, description string) error {
	a.note(c, outcome)
	return a.oauthError(c, status, codeInvalidRequest, description)
}

// errAnswered says that the answer has been written already.
var errAnswered = errors.New("answered")

// read takes the request apart in the order of the contract: method, content type, size, decoding,
// repeats. It answers itself and returns errAnswered when one of them is wrong.
func (a *API) read(c echo.Context, q *oauthRequest) error {
	r := c.Request()
	status, outcome, description := a.readParts(r, q)
	if status == 0 {
		return nil
	}
	if status == http.StatusMethodNotAllowed {
		c.Response().Header().Set("Allow", a.endpointMethods())
	}
	if err := a.refused(c, status, outcome, description); err != nil {
		return err
	}
	return errAnswered
}

// readParts returns status 0 when all is well.
func (a *API) readParts(r *http.Request, q *oauthRequest) (status int, outcome, description string) {
	const bad = http.StatusBadRequest
	switch {
	case r.Method == http.MethodPost:
		if status, outcome, description = a.readBody(r, q); status != 0 {
			return status, outcome, description
		}
		if err := q.form.decode(q.buf); err != nil {
			return bad, "undecodable", "the body is not a well-formed form"
		}
		if err := q.query.decode([]byte(r.URL.RawQuery)); err != nil {
			return bad, "undecodable", "the query is not well-formed"
		}
		if q.query.has(paramToken) || q.query.credentials() {
			return bad, "query", "token and credentials belong in the body"
		}
		if q.query.repeated() || q.query.has(paramHint) && q.seen[paramHint] > 0 {
			return bad, "repeated", "a parameter is repeated"
		}
	case r.Method == http.MethodGet && !a.cfg.RequirePost:
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			return bad, "body", "GET takes no body"
		}
		if len(r.URL.RawQuery) > maxForm {
			return http.StatusRequestEntityTooLarge, "too_large", "the request is too large"
		}
		q.buf = append(q.buf[:0], r.URL.RawQuery...)
		if err := q.form.decode(q.buf); err != nil {
			return bad, "undecodable", "the query is not well-formed"
		}
		if q.credentials() {
			return bad, "query", "credentials never belong in the query"
		}
	default:
		return http.StatusMethodNotAllowed, "method", "method not allowed"
	}
	if q.form.repeated() {
		return bad, "repeated", "a parameter is repeated"
	}
	return 0, "", ""
}

// readBody checks the content type and reads the body into q.buf.
func (a *API) readBody(r *http.Request, q *oauthRequest) (status int, outcome, description string) {
	types := r.Header["Content-Type"]
	if len(types) != 1 || !isForm(types[0]) {
		return http.StatusBadRequest, "content_type", "the content type must be application/x-www-form-urlencoded"
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return http.StatusUnsupportedMediaType, "content_encoding", "content encodings are not supported"
	}
	if r.ContentLength > maxForm {
		return http.StatusRequestEntityTooLarge, "too_large", "the request is too large"
	}
	for {
		n, err := r.Body.Read(q.buf[len(q.buf):cap(q.buf)])
		q.buf = q.buf[:len(q.buf)+n]
		switch {
		case len(q.buf) > maxForm:
			return http.StatusRequestEntityTooLarge, "too_large", "the request is too large"
		case errors.Is(err, io.EOF):
			return 0, "", ""
		case err != nil:
			return http.StatusBadRequest, "truncated", "the body is incomplete"
		}
	}
}

func isForm(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded")
}

// identify authenticates the caller of an OAuth endpoint. It answers itself and returns errAnswered
// when it is nobody. With public, a public client that may revoke is identified by its client_id.
func (a *API) identify(c echo.Context, q *oauthRequest, public bool) error {
	values := c.Request().Header["Authorization"]
	ways := 0
	if len(values) > 0 {
		ways++
	}
	if q.has(paramClientSecret) {
		ways++
	}
	if q.has(paramAssertion) || q.has(paramAssertionType) {
		ways++
	}
	if len(values) > 1 || ways > 1 {
		return answered(a.refused(c, http.StatusBadRequest, "two_ways", "more than one way to authenticate"))
	}
	client, err := a.whoIs(c, q, values, public)
	if errors.Is(err, errTwoWays) {
		return answered(a.refused(c, http.StatusBadRequest, "two_ways", "more than one way to authenticate"))
	}
	if err != nil {
		return answered(a.refuseOAuth(c, err))
	}
	c.(*exchange).client = client
	return nil
}

func answered(err error) error {
	if err != nil {
		return err
	}
	return errAnswered
}

// errTwoWays is returned when the header and the body name different clients.
var errTwoWays = errors.New("more than one way to authenticate")

func (a *API) whoIs(c echo.Context, q *oauthRequest, values []string, public bool) (*revoked.Client, error) {
	id := string(q.values[paramClientID])
	switch {
	case len(values) == 1:
		readings := basicReadings(values[0])
		if id != "" && !named(readings, id) {
			return nil, errTwoWays
		}
		return a.verify(c, readings, revoked.AuthBasic)
	case q.has(paramClientSecret) && id != "":
		return a.verify(c, []credential{{id, string(q.values[paramClientSecret])}}, revoked.AuthPost)
	case public && id != "" && !q.has(paramClientSecret) && !q.has(paramAssertion):
		client, _ := a.cfg.Backend.Client(id)
		if !mayBePublic(client) && a.newer(c.Request().Context(), []credential{{id: id}}, []*revoked.Client{client}) {
			client, _ = a.cfg.Backend.Client(id)
		}
		if mayBePublic(client) {
			return client, nil
		}
	}
	a.metrics.authFailures.WithLabelValues("none").Inc()
	return nil, errUnauthenticated
}

// mayBePublic reports whether a client may revoke by its name alone.
func mayBePublic(c *revoked.Client) bool {
	return c != nil && c.Type == revoked.Public && c.AllowPublicRevocation && !c.Disabled
}

// named reports whether one of the readings is of client id. No readings: the header is malformed and
// names nobody, which the body does not contradict.
func named(readings []credential, id string) bool {
	for _, r := range readings {
		if r.id == id {
			return true
		}
	}
	return len(readings) == 0
}
