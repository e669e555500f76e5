package api

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

// around is what every request goes through: headers, the transport check, panics, metrics and the
// one log line at the end. It is the only global middleware.
func (a *API) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := time.Now()
		a.metrics.inFlight.Inc()
		ex := &exchange{Context: c}
		defer func() {
			if p := recover(); p != nil {
				a.panicked(ex, p)
				if p == http.ErrAbortHandler || ex.Response().Committed {
					a.finish(ex, start)
					panic(http.ErrAbortHandler) // the client must not take what it has for the whole
				}
				_ = a.serverError(ex)
			}
			a.finish(ex, start)
		}()
		h := ex.Response().Header()
		h["Cache-Control"], h["Pragma"], h["X-Content-Type-Options"] = noStore, noCache, noSniff
		if len(a.cfg.CORSOrigins) > 0 && a.cors(ex) {
			return nil
		}
		if err := a.refuseTransport(ex); err != nil {
			a.fail(ex, err)
			return nil
		}
		if ex.Response().Committed {
			return nil
		}
		if err := next(ex); err != nil {
			a.fail(ex, err)
		}
		return nil
	}
}

// Values of headers, shared by all answers: nobody writes into them.
var (
	noStore  = []string{"no-store"}
	noCache  = []string{"no-cache"}
	noSniff  = []string{"nosniff"}
	jsonType = []string{typeJSON}
)

// refuseTransport answers what came over a transport that is not allowed. It has answered when the
// response is committed.
func (a *API) refuseTransport(ex *exchange) error {
	r := ex.Request()
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		if ambiguousLength(r) {
			ex.outcome = "ambiguous"
			ex.Response().Header().Set("Connection", "close")
			return a.malformed(ex, "Content-Length beside Transfer-Encoding")
		}
	}
	if !a.cfg.RequireHTTPS || a.secure(r) {
		return nil
	}
	ex.outcome = "plain_http"
	return a.malformed(ex, "HTTPS is required")
}

// malformed answers 400 in the shape of the path; under /v1 that is a problem document.
func (a *API) malformed(ex *exchange, why string) error {
	if strings.HasPrefix(ex.Request().URL.Path, "/v1/") {
		return a.problemWith(ex, http.StatusBadRequest, why, "")
	}
	return a.oauthError(ex, http.StatusBadRequest, codeInvalidRequest, why)
}

// secure reports whether the request came over TLS, to this node or to a proxy that is trusted.
func (a *API) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if len(a.cfg.TrustedProxies) == 0 {
		return false
	}
	proto := r.Header["X-Forwarded-Proto"]
	return len(proto) == 1 && strings.EqualFold(proto[0], "https") && inside(a.cfg.TrustedProxies, peer(r))
}

// peer returns the address of the other end of the connection, the zero address if there is none.
func peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func inside(networks []netip.Prefix, addr netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// ipNet converts p for echo, which takes the older type.
func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (a *API) panicked(ex *exchange, p any) {
	if p == http.ErrAbortHandler {
		// A stream that could not be finished was broken off on purpose.
		if ex.outcome == "" {
			ex.outcome = "aborted"
		}
		return
	}
	a.metrics.panics.Inc()
	ex.outcome, ex.err = "panic", errors.New("handler panicked")
	// The value of a panic may hold what the handler was reading, so only its type is logged.
	a.cfg.Log.Error("panic in a handler", slog.String("route", a.route(ex)), slog.String("type", fmt.Sprintf("%T", p)),
		slog.String("stack", string(debug.Stack())))
}

func (a *API) serverError(ex *exchange) error {
	if a.isOAuth(ex.Request().URL.Path) {
		return a.oauthError(ex, http.StatusInternalServerError, codeServerError, "internal error")
	}
	return a.problemWith(ex, http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError), "")
}

// finish counts the request and writes its log line: successes of the hot and the health routes at
// debug level, the server's own trouble as a warning, everything else at info.
func (a *API) finish(ex *exchange, start time.Time) {
	a.metrics.inFlight.Dec()
	took := time.Since(start)
	route, status := a.route(ex), ex.Response().Status
	if ex.outcome == "" {
		ex.outcome = "ok"
		if status >= http.StatusBadRequest {
			ex.outcome = "refused"
		}
	}
	a.metrics.requests.add(route, status, ex.outcome, took)
	r := ex.Request()
	level := slog.LevelInfo
	switch {
	case route == "/livez" || route == "/readyz":
		level = slog.LevelDebug // asked every second, and "not yet" is an answer
	case status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	case ex.quiet && status < http.StatusBadRequest:
		level = slog.LevelDebug
	}
	if !a.cfg.Log.Enabled(r.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs,
		slog.String("method", methodName(r.Method)), slog.String("route", route), slog.Int("status", status),
		slog.Duration("duration", took), slog.String("outcome", ex.outcome),
		slog.String("remote", clip(ex.RealIP())), slog.String("request_id", a.ids.of(r)))
	if ex.client != nil {
		attrs = append(attrs, slog.String("client_id", clip(ex.client.ID)))
	}
	if ex.err != nil && status >= http.StatusInternalServerError {
		// Errors of the caller's repeat what he named, and a token may stand where a name belongs.
		attrs = append(attrs, slog.String("error", ex.err.Error()))
	}
	a.cfg.Log.LogAttrs(r.Context(), level, "request", attrs...)
}

// methodName returns a method for the log. Where a body is longer than was said, its rest is read as the
// next request, and a token as the method.
func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// route returns the path of the route that matched, "none" when none did.
func (a *API) route(ex *exchange) string {
	if p := ex.Path(); a.routes[p] {
		return p
	}
	return "none"
}

// clip makes a name that came from outside fit for a log line: short, and without control characters.
func clip(s string) string {
	const most = 64
	clean := len(s) <= most
	for i := 0; clean && i < len(s); i++ {
		clean = s[i] >= 0x20 && s[i] < 0x7f
	}
	if clean {
		return s
	}
	cut := ""
	if len(s) > most {
		s, cut = s[:most], "..."
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return '?'
		}
		return r
	}, s) + cut
}

// requestIDs names requests in the log: by the caller's X-Request-Id where it is harmless, else by a
// prefix drawn at start and a counter. The id is not sent back: answers that must not be told apart
// would differ by it.
type requestIDs struct {
	prefix string
	n      atomic.Uint64
}

func newRequestIDs() (*requestIDs, error) {
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("draw request id prefix: %w", err)
	}
	return &requestIDs{prefix: hex.EncodeToString(b[:])}, nil
}

func (ids *requestIDs) of(r *http.Request) string {
	if given := r.Header.Get("X-Request-Id"); given != "" && requestID.MatchString(given) {
		return given
	}
	return ids.prefix + "-" + strconv.FormatUint(ids.n.Add(1), 36)
}

// requestID is what may be logged as an id of the caller's: a UUID, a trace id (W3C Trace Context) or something
// short. Anything else may be a token.
var requestID = regexp.MustCompile(`^([0-9A-Za-z._-]{1,20}|[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$`)
