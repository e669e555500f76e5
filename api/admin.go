package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

const (
	typeMergePatch = "application/merge-patch+json"
	// maxAdminBody is the most that a body of /v1 may have, registrations aside.
	maxAdminBody = 64 << 10
	maxReason    = 256
	// slowTimeout is for calls that move members or count grants.
	slowTimeout = time.Minute
)

// registerAdmin adds the routes of the admin and issuer API (/v1).
func (a *API) registerAdmin(e *echo.Echo) {
	admin := a.requireRole(revoked.RoleAdmin)
	issuer := a.requireRole(revoked.RoleIssuer, revoked.RoleAdmin)
	reader := a.requireRole(revoked.RoleResourceServer, revoked.RoleAdmin)

	get := func(path string, h echo.HandlerFunc, before ...echo.MiddlewareFunc) { // RFC 9110, 9.1: with HEAD
		e.GET(path, h, before...)
		e.HEAD(path, h, before...)
	}

	e.POST("/v1/grants", a.postGrants, issuer)
	get("/v1/grants/:id", a.getGrant, issuer)
	e.DELETE("/v1/grants/:id", a.deleteGrant, issuer)

	e.POST("/v1/revocations", a.postRevocations, admin)
	feeds := newEndings()
	get("/v1/revocations", func(c echo.Context) error { return a.getRevocations(c, feeds) }, reader)

	get("/v1/clients", a.getClients, admin)
	e.POST("/v1/clients", a.postClients, admin)
	get("/v1/clients/:id", a.getClient, admin)
	e.PATCH("/v1/clients/:id", a.patchClient, admin)
	e.DELETE("/v1/clients/:id", a.deleteClient, admin)
	e.POST("/v1/clients/:id/secret", a.postSecret, admin)

	get("/v1/settings", a.getSettings, admin)
	e.PATCH("/v1/settings", a.patchSettings, admin)

	get("/v1/members", a.getMembers, admin)
	get("/v1/status", a.getStatus, admin)
	e.POST("/v1/cluster/join", a.postJoin, admin)
	e.POST("/v1/cluster/leave", a.postLeave, admin)
	e.POST("/v1/cluster/remove", a.postRemove, admin)
	e.POST("/v1/cluster/transfer-leader", a.postTransferLeader, admin)
	get("/v1/snapshot", a.getSnapshot, admin)
}

// A bodyError is a body that is refused before it is decoded.
type bodyError struct {
	status int
	detail string
}

func (e *bodyError) Error() string { return e.detail }

// mediaType checks that the request's content type is one of types and its body is not encoded, and
// returns which.
func mediaType(r *http.Request, types ...string) (string, error) {
	if len(r.Header["Content-Encoding"]) > 0 {
		return "", &bodyError{http.StatusUnsupportedMediaType, "a body with a Content-Encoding is not taken"}
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if cs, ok := params["charset"]; err == nil && (!ok || strings.EqualFold(cs, "utf-8")) {
		for _, want := range types {
			if t == want {
				return t, nil
			}
		}
	}
	return "", &bodyError{http.StatusUnsupportedMediaType, "Content-Type must be " + strings.Join(types, " or ")}
}

// readBody reads a whole body of at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, &bodyError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit)}
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), int64(len(b)) > limit:
		return nil, &bodyError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit)}
	case err != nil:
		return nil, &bodyError{http.StatusBadRequest, "the body could not be read"}
	}
	return b, nil
}

// decodeBody reads a JSON object with the given fields. A body may be left out when optional is set.
func decodeBody(c echo.Context, optional bool, types []string, names []string, read func(r *jsonReader, k int) error) error {
	r := c.Request()
	if optional && r.ContentLength == 0 {
		return nil
	}
	if _, err := mediaType(r, types...); err != nil {
		return err
	}
	b, err := readBody(r, maxAdminBody)
	if err != nil {
		return err
	}
	if optional && len(b) == 0 {
		return nil
	}
	defer clear(b)
	var j jsonReader
	defer j.wipe()
	j.reset(b)
	if err := j.object(names, func(k int) error { return read(&j, k) }); err != nil {
		return err
	}
	return j.end()
}

// refuse answers a request that failed with err, a [bodyError] among others.
func (a *API) refuse(c echo.Context, err error) error {
	var be *bodyError
	if !errors.As(err, &be) {
		return a.problem(c, err)
	}
	title, outcome := "malformed request", "invalid"
	switch be.status {
	case http.StatusUnsupportedMediaType:
		title, outcome = "unsupported media type", "unsupported_media_type"
	case http.StatusRequestEntityTooLarge:
		title, outcome = "body too large", "too_large"
	}
	a.note(c, outcome)
	return a.problemWith(c, be.status, title, be.detail)
}

// reply answers with a JSON document.
func (a *API) reply(c echo.Context, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return a.problem(c, fmt.Errorf("encode answer: %w", err))
	}
	return write(c, status, typeJSON, append(b, '\n'))
}

// indexAnswer is the answer to most writes.
type indexAnswer struct {
	Index   uint64 `json:"index"`
	Matched *int   `json:"matched,omitempty"`
}

// pathID returns the id in the path, unescaped: it may hold any character.
func pathID(c echo.Context) (string, error) {
	id := c.Param("id")
	if c.Request().URL.RawPath != "" {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return "", fmt.Errorf("%w: id in the path: bad escape", revoked.ErrInvalid)
		}
	}
	if id == "" || len(id) > maxID || !printable(id) {
		return "", fmt.Errorf("%w: no such id", revoked.ErrNotFound)
	}
	return id, nil
}

// words reads a string of 1 to limit bytes without control characters.
func (r *jsonReader) words(limit int) (string, error) {
	b, err := r.text(limit)
	switch {
	case err != nil:
		return "", err
	case len(b) == 0:
		return "", r.fail("empty")
	case !printable(b):
		return "", r.fail("control character")
	}
	return string(b), nil
}

// list reads an array of such strings; equal ones count once. It is never nil.
func (r *jsonReader) list(elements, limit int) ([]string, error) {
	list := []string{}
	err := r.array(elements, func() error {
		s, err := r.words(limit)
		if err != nil {
			return err
		}
		for _, have := range list {
			if have == s {
				return nil
			}
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

// reason reads a reason, which may be empty.
func (r *jsonReader) reason() (string, error) {
	b, err := r.text(maxReason)
	if err == nil && !printable(b) {
		err = r.fail("control character")
	}
	return string(b), err
}
