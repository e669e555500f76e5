package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/registration"
	"revoked/api/strictjson"
	"revoked/internal/retry"
	"revoked/internal/textsafe"
)

// Content types and limits that several handlers share.
const (
	typeJSON = "application/json"
	// maxAdminBody limits the bodies of /v1 other than registrations, in bytes.
	maxAdminBody = 64 << 10
	maxReason    = 256 // bytes
	maxID        = registration.MaxID
	maxURI       = registration.MaxURI
	// slowTimeout limits calls that change the membership or count grants.
	slowTimeout = time.Minute
)

// A request is one HTTP request and its response: echo's context, and the values that the
// middleware counts and logs at the end. Only the goroutine of its handler may use it.
type request struct {
	echo.Context
	client  *revoked.Client    // the authenticated caller, or nil; must not be changed
	caller  *clientauth.Caller // how it authenticated; below /v1 only
	outcome string             // one word for metrics and the log
	err     error              // cause of a 5xx, for the log only
	quiet   bool               // a success is logged at debug level
	flood   bool               // refused at a limit of capacity: logged at debug level
	counted bool               // client has been counted by admit
}

// A handler serves one route. If it returns an error, the middleware writes the response.
type handler func(r *request) error

// adapt makes h a handler of echo. [API.middleware] runs first and supplies the request.
func adapt(h handler) echo.HandlerFunc {
	return func(c echo.Context) error { return h(c.(*request)) }
}

// withSlowTimeout returns the request's context, limited to slowTimeout, and extends the write
// deadline of the connection accordingly.
func (r *request) withSlowTimeout() (context.Context, context.CancelFunc) {
	at := time.Now().Add(slowTimeout + 10*time.Second) // deadlines of sockets follow the system's clock
	// If it fails, the server's own write timeout ends the response earlier.
	_ = http.NewResponseController(r.Response()).SetWriteDeadline(at)
	return context.WithTimeout(r.Request().Context(), slowTimeout)
}

// Accepted content types of a body, and of a merge patch.
var (
	typesJSON  = []string{typeJSON}
	typesPatch = []string{"application/merge-patch+json", typeJSON}
)

// queryNames are the query parameters of /v1. Other names are ignored.
var queryNames = []string{"after", "client_id", "follow", "issuer", "limit", "reason", "results", "session", "state",
	"subject"}

// checkQuery rejects a query that does not parse or repeats a parameter. net/url would drop a
// malformed pair and return the first of two values. The error wraps [revoked.ErrInvalid].
func checkQuery(raw string) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	var escape url.EscapeError
	switch {
	case errors.As(err, &escape):
		return fmt.Errorf("%w: bad escape in the query", revoked.ErrInvalid)
	case err != nil:
		return fmt.Errorf("%w: semicolon in the query", revoked.ErrInvalid)
	}
	for _, name := range queryNames {
		if len(values[name]) > 1 {
			return fmt.Errorf("%w: query parameter %s is repeated", revoked.ErrInvalid, name)
		}
	}
	return nil
}

// pathID returns the unescaped id in the path. The error wraps [revoked.ErrInvalid] for a bad
// escape and [revoked.ErrNotFound] for a text that cannot be an id.
func (r *request) pathID() (string, error) {
	id := r.Param("id")
	if r.Request().URL.RawPath != "" {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return "", fmt.Errorf("%w: id in the path: bad escape", revoked.ErrInvalid)
		}
	}
	if id == "" || len(id) > maxID || !textsafe.Printable(id) {
		return "", fmt.Errorf("%w: no such id", revoked.ErrNotFound)
	}
	return id, nil
}

// mediaType returns the content type of the request. It fails unless the type is one of types, in
// UTF-8 and without a content encoding.
func mediaType(r *http.Request, types ...string) (string, error) {
	if len(r.Header["Content-Encoding"]) > 0 {
		return "", unsupportedType("Content-Encoding is not supported")
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if cs, ok := params["charset"]; err == nil && (!ok || strings.EqualFold(cs, "utf-8")) {
		for _, want := range types {
			if t == want {
				return t, nil
			}
		}
	}
	return "", unsupportedType("Content-Type must be " + strings.Join(types, " or "))
}

func unsupportedType(detail string) error {
	return &failure{status: http.StatusUnsupportedMediaType, title: "unsupported media type",
		outcome: "unsupported_media_type", detail: detail}
}

// readBody returns the whole body, which may have at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	tooLong := &failure{status: http.StatusRequestEntityTooLarge, title: "body too large", outcome: "too_large",
		detail: fmt.Sprintf("the body is longer than %d bytes", limit)}
	if r.ContentLength > limit {
		return nil, tooLong
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var maxBytes *http.MaxBytesError
	switch {
	case errors.As(err, &maxBytes), int64(len(b)) > limit:
		return nil, tooLong
	case err != nil:
		return nil, &failure{status: http.StatusBadRequest, title: titleMalformed, outcome: "invalid",
			detail: "the body could not be read"}
	}
	return b, nil
}

// A field is a member that a JSON body may have, and how to read its value.
type field struct {
	name string
	read func(j *strictjson.Reader) error
}

// A readFunc reads a value of a JSON body.
type readFunc[T any] func(j *strictjson.Reader) (T, error)

// into returns a field whose value goes to dst. The value null leaves dst unchanged.
func into[T any](name string, dst *T, read readFunc[T]) field {
	return field{name, func(j *strictjson.Reader) (err error) {
		if !j.Null() {
			*dst, err = read(j)
		}
		return err
	}}
}

// name reads a string of 1 to limit bytes without control characters.
func name(limit int) readFunc[string] {
	return func(j *strictjson.Reader) (string, error) { return j.Name(limit) }
}

// names reads a list of at most elements strings, each of 1 to limit bytes without control
// characters.
func names(elements, limit int) readFunc[[]string] {
	return func(j *strictjson.Reader) ([]string, error) { return j.Names(elements, limit) }
}

// readReason reads a reason, which may be empty.
func readReason(j *strictjson.Reader) (string, error) { return j.Line(maxReason) }

// decodeBody reads the request's body, a JSON object with some of fields.
func (r *request) decodeBody(types []string, fields ...field) error {
	return r.decodeLimited(types, maxAdminBody, fields...)
}

// decodeLimited is decodeBody for a body of at most limit bytes.
func (r *request) decodeLimited(types []string, limit int64, fields ...field) error {
	if _, err := mediaType(r.Request(), types...); err != nil {
		return err
	}
	b, err := readBody(r.Request(), limit)
	if err != nil {
		return err
	}
	return decodeObject(b, fields)
}

// decodeOptional is decodeBody for a JSON body that may be missing.
func (r *request) decodeOptional(fields ...field) error {
	if r.Request().ContentLength == 0 {
		return nil
	}
	if _, err := mediaType(r.Request(), typeJSON); err != nil {
		return err
	}
	b, err := readBody(r.Request(), maxAdminBody)
	if err != nil || len(bytes.TrimPrefix(b, []byte("\ufeff"))) == 0 {
		return err
	}
	return decodeObject(b, fields)
}

// decodeObject reads b, a JSON object with some of fields, and then clears b, which may hold a
// secret.
func decodeObject(b []byte, fields []field) error {
	defer clear(b)
	var j strictjson.Reader
	defer j.Wipe()
	j.Reset(b)
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.name
	}
	if err := j.Object(list, func(k int) error { return fields[k].read(&j) }); err != nil {
		return err
	}
	return j.End()
}

// retryConflict calls change at most five times while it returns [revoked.ErrConflict]. change must
// read the record again each time. The pauses let this node catch up with the leader.
func retryConflict(ctx context.Context, change func() error) error {
	tries := func(err error) int {
		if errors.Is(err, revoked.ErrConflict) {
			return 5
		}
		return 1
	}
	return retry.Do(ctx, 20*time.Millisecond, tries, change)
}

// requestIDs supplies ids of requests for the log: the caller's X-Request-Id if it is harmless,
// else a random prefix and a counter. Responses omit the id, because some of them must be equal.
type requestIDs struct {
	prefix string
	n      atomic.Uint64
}

func newRequestIDs() *requestIDs {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return &requestIDs{prefix: hex.EncodeToString(b[:])}
}

func (ids *requestIDs) of(r *http.Request) string {
	if given := r.Header.Get("X-Request-Id"); given != "" && requestID.MatchString(given) {
		return given
	}
	return ids.prefix + "-" + strconv.FormatUint(ids.n.Add(1), 36)
}

// requestID matches the ids of callers that may be logged: UUIDs, trace ids (W3C Trace Context) and
// short ones. Any other id may be a token.
var requestID = regexp.MustCompile(
	`^([0-9A-Za-z._-]{1,20}|[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$`)
