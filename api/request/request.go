package request

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/serve"
	"revoked/internal/retry"
	"revoked/internal/textsafe"
)

// SlowTimeout limits calls that change the membership or count grants.
const SlowTimeout = time.Minute

// A Request is one HTTP request and its response: echo's context, and the values that the
// middleware counts and logs at the end. Only the goroutine of its handler may use it.
type Request struct {
	echo.Context
	Client  *revoked.Client    // record of the authenticated caller, or nil; must not be changed
	Caller  *clientauth.Caller // how the caller was authenticated, or nil
	Outcome string             // one word for metrics and the log
	Err     error              // cause of a 5xx, for the log only
	Quiet   bool               // a success is logged at debug level
	Flood   bool               // the request was refused at a capacity limit: logged at debug level
	Counted bool               // Client's requests in progress include this one
	Inner   *Inner             // nil for a request from outside this process
	IDs     *IDs               // supplies ID
	id      string

	// For the audit entry of a refusal. A handler sets them once it has read them from the request.
	Kind      revoked.AuditKind // empty: the kind of the route
	Object    revoked.AuditObject
	Unaudited bool // no audit entry for a refusal, because the request is a dry run

	// Presented is the assertion of the request; nil before it is read, and for other methods.
	Presented *clientauth.Presented
}

// Inner describes a call that the console makes for the request of a browser.
type Inner struct {
	// Repeated is set for a page that updates itself, and for a call that reads more of an answer that
	// an earlier call has begun. A success is logged at debug level, and the call does not wait for
	// newer entries.
	Repeated bool
}

type innerKey struct{}

// WithInner returns a copy of ctx for inner calls.
func WithInner(ctx context.Context, call Inner) context.Context {
	return context.WithValue(ctx, innerKey{}, &call)
}

// InnerOf returns the value of [WithInner], or nil if ctx has none.
func InnerOf(ctx context.Context) *Inner {
	call, _ := ctx.Value(innerKey{}).(*Inner)
	return call
}

// ID returns the id of the request, for the log and the audit log.
func (r *Request) ID() string {
	if r.id == "" && r.IDs != nil {
		r.id = r.IDs.Of(r.Request())
	}
	return r.id
}

// Actor returns the authenticated caller as the actor of a change.
func (r *Request) Actor() revoked.Actor {
	by := r.Caller.Actor(r.Client)
	by.RequestID = r.ID()
	return by
}

// A Handler serves one route. If it returns an error, the middleware writes the response.
type Handler func(r *Request) error

// Adapt makes h a handler of echo. A middleware must have replaced echo's context with a *Request.
func Adapt(h Handler) echo.HandlerFunc {
	return func(c echo.Context) error { return h(c.(*Request)) }
}

// WithSlowTimeout returns the request's context, limited to [SlowTimeout], and extends the write
// deadline of the connection accordingly.
func (r *Request) WithSlowTimeout() (context.Context, context.CancelFunc) {
	at := time.Now().Add(SlowTimeout + 10*time.Second) // deadlines of sockets follow the system's clock
	// If it fails, the server's own write timeout ends the response earlier.
	_ = http.NewResponseController(r.Response()).SetWriteDeadline(at)
	return context.WithTimeout(r.Request().Context(), SlowTimeout)
}

// Peer returns the address of the other end of the connection, or the zero address if it is
// unknown. Behind a proxy, that is the address of the proxy.
func Peer(r *http.Request) netip.Addr { return serve.CallerAddr(r, nil) }

// queryNames are the query parameters of /v1. Other names are ignored.
var queryNames = []string{"actor", "after", "at", "client_id", "digest", "follow", "issuer", "kind", "limit", "object",
	"reason", "results", "session", "since", "state", "subject", "until"}

// CheckQuery rejects a query that does not parse or repeats a parameter. net/url would drop a
// malformed pair and return the first of two values. The error wraps [revoked.ErrInvalid].
func CheckQuery(raw string) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	var escape url.EscapeError
	switch {
	case errors.As(err, &escape):
		return fmt.Errorf("%w: invalid escape in the query", revoked.ErrInvalid)
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

// PathID returns the unescaped id in the path. The error wraps [revoked.ErrInvalid] for a bad
// escape and [revoked.ErrNotFound] for a text that cannot be an id.
func (r *Request) PathID() (string, error) {
	id := r.Param("id")
	if r.Request().URL.RawPath != "" {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return "", fmt.Errorf("%w: id in the path: invalid escape", revoked.ErrInvalid)
		}
	}
	if id == "" || len(id) > MaxID || !textsafe.Printable(id) {
		return "", fmt.Errorf("%w: no such id", revoked.ErrNotFound)
	}
	return id, nil
}

// RetryConflict calls change at most five times while it returns [revoked.ErrConflict]. change must
// read the record again each time. The pauses let this node catch up with the leader.
func RetryConflict(ctx context.Context, change func() error) error {
	tries := func(err error) int {
		if errors.Is(err, revoked.ErrConflict) {
			return 5
		}
		return 1
	}
	return retry.Do(ctx, 20*time.Millisecond, tries, change)
}

// IDs supplies ids of requests for the log: the caller's X-Request-Id if it is harmless,
// else a random prefix and a counter. Responses omit the id, because some of them must be equal.
type IDs struct {
	prefix string
	n      atomic.Uint64
}

func NewIDs() *IDs {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return &IDs{prefix: hex.EncodeToString(b[:])}
}

func (ids *IDs) Of(r *http.Request) string {
	if given := r.Header.Get("X-Request-Id"); given != "" && requestID.MatchString(given) {
		return given
	}
	return ids.prefix + "-" + strconv.FormatUint(ids.n.Add(1), 36)
}

// requestID matches the ids of callers that may be logged: UUIDs, trace ids (W3C Trace Context) and
// short ids. Any other id may be a token.
var requestID = regexp.MustCompile(
	`^([0-9A-Za-z._-]{1,20}|[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$`)
